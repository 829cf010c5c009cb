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
from ivra.shapes import Logits

TOKEN_BUDGET = 2048
"""Tokens of a batch: what fits a CPU's cache; larger ones take longer a token there."""
HIDDEN = -1
"""The code of a token that keeps its place but that attention does not see."""
_TYPE_SHIFT = 40
Integers = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
"""Whole numbers, one for each token or row."""


class TokenRows(NamedTuple):
    """Rows as one flat array of codes, row after row, without padding.

    A code holds a token's id and its type, or is :data:`HIDDEN`. Rows whose codes are equal are
    the same input.
    """

    codes: Integers
    lengths: Integers

    @property
    def starts(self) -> Integers:
        """Where each row begins."""
        return np.cumsum(self.lengths) - self.lengths


def token_rows(items: Sequence[Item]) -> TokenRows:
    """The tokens of ``items``."""
    lengths = integers(len(item.input_ids) for item in items)
    ids = integers(chain.from_iterable(item.input_ids for item in items))
    types = integers(chain.from_iterable(item.token_type_ids for item in items))
    return TokenRows(token_codes(ids, types), lengths)


def token_codes(ids: Integers, types: Integers) -> Integers:
    """One code for each token."""
    return ids + (types << _TYPE_SHIFT)


def types_of(codes: Integers) -> Integers:
    """The token types of codes; 0 for a hidden token."""
    return np.where(codes == HIDDEN, 0, codes >> _TYPE_SHIFT)


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


def predict(backbone: Backbone, items: Sequence[Item], budget: int = TOKEN_BUDGET) -> Logits:
    """Logits ``(rows, C)`` on the CPU, in the order of ``items``."""
    return predict_rows(backbone, token_rows(items), budget)


@torch.inference_mode()
def predict_rows(
    backbone: Backbone, rows: TokenRows, budget: int = TOKEN_BUDGET, *, no_words: bool = False
) -> Logits:
    """Logits ``(rows, C)`` on the CPU; ``no_words`` sets every word embedding to 0.

    The first token of every row must be visible. Nothing waits for the device before the last
    batch.
    """
    logits = torch.zeros(len(rows.lengths), backbone.sizes.classes)
    groups = list(_packed(rows.lengths, budget))
    starts = rows.starts
    found = []
    with _embeddings(backbone.embeddings, zero=no_words):
        for group in groups:
            lengths = torch.from_numpy(rows.lengths[group])
            place = torch.arange(int(lengths[0]))
            present = place < lengths[:, None]
            picked = (torch.from_numpy(starts[group])[:, None] + place) * present
            codes = torch.from_numpy(rows.codes)[picked]
            visible = present & (codes != HIDDEN)
            ids = torch.where(visible, codes & ((1 << _TYPE_SHIFT) - 1), backbone.pad_id)
            types = torch.where(visible, codes >> _TYPE_SHIFT, 0)
            place_on = (tensor.to(backbone.device) for tensor in (ids, types, visible, present))
            found.append(backbone.classify(*place_on).float())
    if found:
        logits[torch.from_numpy(np.concatenate(groups))] = torch.cat(found).cpu()
    return logits


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
