"""Rows as read from disk, rows as token ids, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch

from ivra.shapes import Labels, RowMask, Spans, TokenIds, TokenMask

Span = tuple[int, int]
"""Start and end (exclusive) in Unicode code points of one text."""
NOWHERE = -100
"""The place of the answer in a batch, for a row without one in sight."""


class Answer(NamedTuple):
    """A gold answer: its text, and where it starts in the context, in code points."""

    text: str
    start: int


@dataclass(frozen=True)
class Row:
    """One example as it was read.

    ``texts`` holds one text, or two for a pair (premise, hypothesis). ``rationale`` holds the
    spans of each text that a human marked; ``None`` says that nobody annotated the row, which
    is not the same as an empty tuple of spans (annotated, and nothing was marked).
    ``answers`` are the gold answers of a question, whose texts are (question, context); ``None``
    says that the row is no question, or that nobody answered it.
    ``where`` names file and line for error messages. ``docids`` is empty but for ERASER data
    (:mod:`ivra.data.eraser`): there it names the document that each text is, or is ``None`` for
    a query, which the model reads but which may receive no saliency and is never removed.
    """

    id: str
    texts: tuple[str, ...]
    label: str | None = None
    rationale: tuple[tuple[Span, ...], ...] | None = None
    where: str = ""
    docids: tuple[str | None, ...] = ()
    answers: tuple[Answer, ...] | None = None


class Item(NamedTuple):
    """One row as token ids: what :func:`collate` pads into a :class:`Batch`.

    ``segment`` is the index of the text a token comes from and ``word`` the index of its word
    within the row (counted over both texts); both are -1 on special tokens. ``answer`` is the
    first and last token (inclusive) of the first gold answer, ``None`` where it is not in sight.
    """

    input_ids: list[int]
    token_type_ids: list[int]
    explainable: list[bool]
    segment: list[int]
    word: list[int]
    offsets: list[Span]
    label: int
    rationale: list[bool] | None
    row: Row
    answer: tuple[int, int] | None = None


@dataclass(frozen=True)
class Batch:
    """Padded rows.

    ``explainable`` is true where a token may receive saliency: never on padding or special
    tokens, and at least once in every row. ``labels`` are -100 where a row has none.
    ``rationale`` is false wherever ``annotated`` is false. ``answers`` are places in the batch,
    :data:`NOWHERE` where there is none. ``items`` are what was padded, in order, so that a report
    can go back to the text.
    """

    input_ids: TokenIds
    token_type_ids: TokenIds
    attention_mask: TokenMask
    explainable: TokenMask
    segment: TokenIds
    word_ids: TokenIds
    labels: Labels
    rationale: TokenMask
    annotated: RowMask
    answers: Spans
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)


def collate(items: Sequence[Item], pad_id: int, padding_side: str = "right") -> Batch:
    """Pad ``items`` to their longest and stack them.

    Masks are built from lengths, never from ``input_ids != pad_id``, so that a padding token
    that is also a real token (``pad = eos``) is harmless.
    """
    length = max(len(item.input_ids) for item in items)

    def pad(values: Sequence[int], fill: int) -> list[int]:
        blank = [fill] * (length - len(values))
        return blank + list(values) if padding_side == "left" else list(values) + blank

    def stack(field: str, fill: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([pad(getattr(item, field), fill) for item in items], dtype=dtype)

    rationale = [item.rationale or [False] * len(item.input_ids) for item in items]
    blank = [length - len(item.input_ids) if padding_side == "left" else 0 for item in items]
    answers = [
        [NOWHERE] * 2 if item.answer is None else [place + before for place in item.answer]
        for item, before in zip(items, blank, strict=True)
    ]
    return Batch(
        input_ids=stack("input_ids", pad_id, torch.long),
        token_type_ids=stack("token_type_ids", 0, torch.long),
        attention_mask=torch.tensor([pad([True] * len(i.input_ids), False) for i in items]),
        explainable=stack("explainable", False, torch.bool),
        segment=stack("segment", -1, torch.long),
        word_ids=stack("word", -1, torch.long),
        labels=torch.tensor([item.label for item in items], dtype=torch.long),
        rationale=torch.tensor([pad(marks, False) for marks in rationale], dtype=torch.bool),
        annotated=torch.tensor([item.rationale is not None for item in items]),
        answers=torch.tensor(answers, dtype=torch.long),
        items=tuple(items),
    )
