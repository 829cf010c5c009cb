"""Predictions of many rows at once, packed by length under a token budget."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ivra.backbones import Backbone
from ivra.data import Item, collate
from ivra.explainers import BATCH_TOKENS, Explainer, check_scores
from ivra.shapes import Outputs
from ivra.tasks import answerable

TOKEN_BUDGET = 2048
"""Tokens of a batch: what fits a CPU's cache; larger ones take longer a token there."""
HIDDEN = -1
"""The code of a token that keeps its place but that attention does not see."""
_TYPE_SHIFT, _ANSWER_SHIFT = 40, 48
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
"""Whole numbers, one for each token or row."""


class TokenRows(NamedTuple):
    """Rows as one flat array of codes, row after row, without padding.

    A code holds a token's id, its type and whether an answer may begin and end there, or is
    :data:`HIDDEN`. Rows whose codes are equal are the same input.
    """

    codes: Integers
    lengths: Integers

    @property
    def starts(self) -> Integers:
        """Where each row begins."""
        return np.cumsum(self.lengths) - self.lengths


def token_rows(items: Sequence[Item], answers: bool = False) -> TokenRows:
    """The tokens of ``items``; with ``answers`` those of questions and their contexts."""
    lengths = integers(len(item.input_ids) for item in items)
    ids = integers(chain.from_iterable(item.input_ids for item in items))
    types = integers(chain.from_iterable(item.token_type_ids for item in items))
    codes = ids + (types << _TYPE_SHIFT)
    if answers:
        segment = torch.from_numpy(integers(chain.from_iterable(item.segment for item in items)))
        word = torch.from_numpy(integers(chain.from_iterable(item.word for item in items)))
        codes = codes + (answerable(segment, word).long().numpy() << _ANSWER_SHIFT)
    return TokenRows(codes, lengths)


def with_ids(codes: Integers, ids: Integers) -> Integers:
    """The same tokens with other ids; a hidden token has type 0 then."""
    shown = np.where(codes == HIDDEN, 0, codes)
    return ids + (shown >> _TYPE_SHIFT << _TYPE_SHIFT)


def integers(values: Iterable[int]) -> Integers:
    """``values`` as an array."""
    return np.fromiter(values, dtype=np.int64)


def packed(items: Sequence[Item], budget: int = TOKEN_BUDGET) -> Iterator[list[int]]:
    """Indices of ``items`` in groups of like length: rows x longest is at most ``budget``.

    Longest first, so that the largest batch comes first; every group has at least one row.
    """
    lengths = integers(len(item.input_ids) for item in items)
    return (group.tolist() for group in _packed(lengths, budget))


def _packed(lengths: Integers, budget: int) -> Iterator[Integers]:
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size


def predict(backbone: Backbone, items: Sequence[Item], budget: int = TOKEN_BUDGET) -> Outputs:
    """Logits on the CPU, in the order of ``items``; of answers at the row's own tokens."""
    return predict_rows(backbone, token_rows(items, not backbone.task.has_classes), budget)


@torch.inference_mode()
def predict_rows(
    backbone: Backbone, rows: TokenRows, budget: int = TOKEN_BUDGET, *, no_words: bool = False
) -> Outputs:
    """Logits on the CPU; ``no_words`` sets every word embedding to 0.

    The first token of every row must be visible. Nothing waits for the device before the last
    batch.
    """
    starts = rows.starts
    found = []
    with _embeddings(backbone.embeddings, zero=no_words):
        for group in _packed(rows.lengths, budget):
            lengths = torch.from_numpy(rows.lengths[group])
            place = torch.arange(int(lengths[0]))
            present = place < lengths[:, None]
            picked = (torch.from_numpy(starts[group])[:, None] + place) * present
            codes = torch.from_numpy(rows.codes)[picked]
            visible = present & (codes != HIDDEN)
            ids = torch.where(visible, codes & ((1 << _TYPE_SHIFT) - 1), backbone.pad_id)
            kinds = torch.where(visible, codes >> _TYPE_SHIFT, 0)
            open_ = kinds >> (_ANSWER_SHIFT - _TYPE_SHIFT) > 0
            types = kinds & ((1 << (_ANSWER_SHIFT - _TYPE_SHIFT)) - 1)
            inputs = (ids, types, visible, present, open_)
            outputs = backbone.classify(*(tensor.to(backbone.device) for tensor in inputs))
            found.append((torch.from_numpy(group), outputs.float()))
    return backbone.task.filled(len(rows.lengths), found, backbone.sizes.classes)


@contextmanager
def _embeddings(layer: nn.Module, zero: bool) -> Iterator[None]:
    def zeroed(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    if not zero:
        yield
        return
    handle = layer.register_forward_hook(zeroed)
    try:
        yield
    finally:
        handle.remove()


def token_scores(
    explainer: Explainer, backbone: Backbone, items: Sequence[Item], budget: int = BATCH_TOKENS
) -> list[torch.Tensor]:
    """Each row's scores without padding, ``(L_i,)``, on the CPU, in the order of ``items``.

    ``budget`` is how many tokens, padding included, one batch of the explainer has at most (or
    one row, where that is longer); an explainer that makes copies has its own ``batch_tokens``.

    Raises:
        IvraError: the explainer returns something else than scores of explainable tokens.
    """
    found: dict[int, torch.Tensor] = {}
    for group in packed(items, budget):
        batch = collate([items[i] for i in group], backbone.pad_id, backbone.padding_side)
        batch = batch.to(backbone.device)
        scores = check_scores(explainer.name, explainer.explain(backbone, batch), batch)
        for row, index in enumerate(group):
            found[index] = scores[row, batch.attention_mask[row]].float().cpu()
    return [found[index] for index in range(len(items))]
