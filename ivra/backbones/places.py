"""Tokens of a batch in other places than they came in: left out, moved, or made findable."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ivra.attention import LayerReading
from ivra.data import Batch
from ivra.shapes import TokenIds, TokenMask

_GROUPS = 4
"""In how many groups of like length shortened rows run: fewer pad more, more are smaller."""


def shortened(
    batch: Batch, kept: TokenMask, pad_id: int
) -> Iterator[tuple[Tensor, TokenIds, TokenIds, TokenMask]]:
    """The rows with all but their ``kept`` tokens deleted, like lengths together.

    Of each group: which rows it is, their ids and token types, padded on the right, and where a
    token is.
    """
    counts = kept.sum(-1)
    order = kept.logical_not().int().argsort(dim=1, stable=True)
    for rows in counts.argsort(descending=True).chunk(_GROUPS):
        place = order[rows, : int(counts[rows[0]])]
        present = kept[rows].gather(1, place)
        ids = batch.input_ids[rows].gather(1, place).where(present, pad_id)
        types = batch.token_type_ids[rows].gather(1, place).where(present, 0)
        yield rows, ids, types, present


def findable(ids: TokenIds, visible: TokenMask, pad_id: int) -> TokenIds:
    """``ids`` for a head that reads the last token whose id is not that of padding.

    In a row of nothing but that id (pad = eos) it would read column 0, be that padding. The first
    visible token of such a row, which is what it reads in the row alone, gets another id.
    """
    lost = (visible & (ids != pad_id)).any(-1, keepdim=True).logical_not()
    if not bool(lost.any()):
        return ids
    first = visible & (visible.cumsum(-1) == 1)
    return torch.where(first & lost, int(pad_id == 0), ids)


def gather_tokens(states: Tensor, place: Tensor) -> Tensor:
    """``states (B, L, E)`` with token ``place[b, l]`` of row ``b`` at ``l``."""
    return states.gather(1, place[..., None].expand_as(states))


def reorder_reading(reading: LayerReading, place: Tensor) -> LayerReading:
    """The same of what was read of a layer."""

    def move(scores: Tensor) -> Tensor:
        return scores.gather(2, place[:, None].expand_as(scores))

    values = None if reading.values is None else move(reading.values)
    return LayerReading(move(reading.heads), values)
