"""Reduced inputs of a chunk of rows: each different one held once and run once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Item
from ivra.errors import IvraError
from ivra.evaluation.aopc_settings import AopcSettings
from ivra.evaluation.cuts import Removable
from ivra.evaluation.prediction import (
    HIDDEN,
    Integers,
    TokenRows,
    predict_rows,
    token_rows,
    with_ids,
)
from ivra.shapes import BinCounts, BinLogits, Outputs, TopTokens

LIVE_TOKENS = 2**22
"""Tokens of reduced inputs that are held at once: 32 MB of codes, and about as much of masks."""


class Asked(NamedTuple):
    """Where in a pool the input of each row and bin is, and what is asked of it: how probable the
    prediction of the whole row is there, one ``prediction`` a row and bin."""

    place: BinCounts
    prediction: Tensor


class ReducedPlaces(NamedTuple):
    """What is asked of :class:`ReducedRows` for each row and bin."""

    without: Asked
    only: Asked
    null: Asked


def chunks(
    lengths: Sequence[int], per_row: int, live_tokens: int = LIVE_TOKENS
) -> Iterator[list[int]]:
    """Indices in groups of like length with rows x longest x ``per_row`` at most ``live_tokens``.

    Every group has at least one row, whatever its length.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, live_tokens // (max(1, lengths[order[start]]) * per_row))
        yield order[start : start + size]
        start += size


class ReducedRows:
    """The different inputs among all that the explainers of a chunk ask for.

    After :meth:`run` each different input has its logits; the whole rows come first and are not
    run again.
    """

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[Item],
        tokens: Removable,
        settings: AopcSettings,
        logits: Outputs,
    ) -> None:
        self.logits = logits
        self._backbone = backbone
        self._task = backbone.task
        self._prediction = self._task.predict(logits)
        self._tokens = tokens
        self._settings = settings
        self._replacement = _replacement(backbone, settings.removal)
        whole = token_rows(items, not self._task.has_classes)
        self._present = tokens.present.numpy()
        self._codes = np.zeros(self._present.shape, dtype=np.int64)
        self._codes[self._present] = whole.codes
        self._pool = _Pool()
        self._places = self._pool.add(whole)
        self._wordless = _Pool()
        self._null_logits = logits

    def add(self, top: TopTokens) -> ReducedPlaces:
        """Ask for the rows without ``top``, with it alone, and for the null input."""
        present, stays = self._tokens.present[:, None], ~self._tokens.removable[:, None]
        only, kept = self._reduced(present & (top | stays))
        if self._settings.null == "special":
            null = self._asked(self._pool, *self._reduced(present & stays))
        else:
            null = self._asked(self._wordless, self._without_words(only), kept)
        return ReducedPlaces(
            self._asked(self._pool, *self._reduced(present & ~top)),
            self._asked(self._pool, only, kept),
            null,
        )

    def _asked(self, pool: "_Pool", rows: TokenRows, kept: TopTokens) -> Asked:
        place = torch.from_numpy(pool.add(rows)).view(len(kept), -1)
        return Asked(place, self._task.moved(self._prediction, kept))

    def run(self, budget: int) -> None:
        """Run every different input once."""
        new = np.ones(len(self._pool), dtype=bool)
        new[self._places] = False
        rows = self._pool.rows(new)
        fresh = predict_rows(self._backbone, rows, budget, no_words=False)
        parts = [
            (torch.from_numpy(self._places), self.logits),
            (torch.from_numpy(new.nonzero()[0]), fresh),
        ]
        classes = self._backbone.sizes.classes
        self.logits = self._task.filled(len(self._pool), parts, classes)
        wordless = self._wordless.rows(np.ones(len(self._wordless), dtype=bool))
        self._null_logits = predict_rows(self._backbone, wordless, budget, no_words=True)

    def class_logits(self, asked: Asked) -> BinLogits:
        """Logits of classes, of which the prediction asked for is one, ``(B, K, C)``."""
        return self._class_logits(self.logits, asked)

    def null_logits(self, place: ReducedPlaces) -> BinLogits:
        """The same of the null inputs of ``place``, ``(B, 1, C)`` or ``(B, K, C)``."""
        special = self._settings.null == "special"
        return self._class_logits(self.logits if special else self._null_logits, place.null)

    def _class_logits(self, logits: Tensor, asked: Asked) -> BinLogits:
        found, _ = self._task.contrast(logits[asked.place.flatten()], asked.prediction)
        return found.view(*asked.place.shape, found.shape[-1])

    def _reduced(self, keep: TopTokens) -> tuple[TokenRows, TopTokens]:
        """The tokens of every row and bin when ``keep`` stays, in that order, and which of the
        row's own tokens they are."""
        kept, removal = keep.numpy(), self._settings.removal
        codes = np.broadcast_to(self._codes[:, None], kept.shape)
        if removal in ("deletion", "attention"):
            # One token must be left to read; and a head that reads the first token needs it.
            reads_first = removal == "attention" and self._backbone.family.pooled == "first"
            kept = kept.copy()
            kept[..., 0] |= reads_first | ~kept.any(-1)
        if removal == "deletion":
            return TokenRows(codes[kept], kept.sum(-1).ravel()), torch.from_numpy(kept)
        every = self._tokens.present[:, None].expand(kept.shape)
        present = every.numpy()
        removed: Integers = np.full(self._codes.shape, self._replacement, dtype=np.int64)
        if self._replacement != HIDDEN:
            removed = with_ids(self._codes, removed)
        codes = np.where(kept, codes, removed[:, None])
        rows = TokenRows(codes[present], present.sum(-1).ravel())
        return rows, every

    def _without_words(self, rows: TokenRows) -> TokenRows:
        """The same lengths and types with one id, which is not the padding's."""
        anything = 0 if self._backbone.pad_id else 1
        return TokenRows(with_ids(rows.codes, np.full_like(rows.codes, anything)), rows.lengths)


class _Pool:
    """Different rows in the order in which they came."""

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}
        self._pieces: list[TokenRows] = []

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, rows: TokenRows) -> Integers:
        """The slot of each row; equal rows have the same."""
        data, slots = rows.codes.tobytes(), self._slots
        ends = rows.codes.itemsize * np.cumsum(rows.lengths)
        before, start, found = len(slots), 0, []
        for end in ends.tolist():
            found.append(slots.setdefault(data[start:end], len(slots)))
            start = end
        place = np.array(found, dtype=np.int64)
        fresh = np.zeros(len(place), dtype=bool)
        first = np.unique(place, return_index=True)[1]
        fresh[first[place[first] >= before]] = True
        self._pieces.append(_picked(rows, fresh))
        return place

    def rows(self, wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> TokenRows:
        """Those of the different rows that are wanted, in order."""
        if not self._pieces:
            return TokenRows(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        codes = np.concatenate([piece.codes for piece in self._pieces])
        lengths = np.concatenate([piece.lengths for piece in self._pieces])
        return _picked(TokenRows(codes, lengths), wanted)


def _picked(rows: TokenRows, wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> TokenRows:
    return TokenRows(rows.codes[np.repeat(wanted, rows.lengths)], rows.lengths[wanted])


def _replacement(backbone: Backbone, removal: str) -> int:
    """The code that stands for a removed token."""
    if removal == "mask":
        if backbone.tokenizer.mask_token_id is None:
            raise IvraError(
                "removal 'mask' of AOPC needs a mask token, which the tokenizer of "
                f"{backbone.source} does not have: choose deletion, pad or attention"
            )
        return int(backbone.tokenizer.mask_token_id)
    return backbone.pad_id if removal == "pad" else HIDDEN
