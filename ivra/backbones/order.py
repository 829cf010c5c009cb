"""Tokens in another order than the batch has them, for heads that read the first one."""

from dataclasses import replace

from torch import Tensor

from ivra.attention import LayerReading
from ivra.data import Batch


def padded_right(batch: Batch) -> tuple[Batch, Tensor]:
    """``batch`` with its padding behind the tokens, and each token's place there, ``(B, L)``."""
    order = batch.attention_mask.logical_not().int().argsort(dim=1, stable=True)
    fields = ("input_ids", "token_type_ids", "attention_mask", "explainable")
    moved = {name: getattr(batch, name).gather(1, order) for name in fields}
    return replace(batch, **moved), order.argsort(dim=1)


def reordered_tokens(states: Tensor, place: Tensor) -> Tensor:
    """``states (B, L, ...)`` of the tokens at ``place (B, L)``."""
    return states.gather(1, place[..., None].expand_as(states))


def reordered_reading(reading: LayerReading, place: Tensor) -> LayerReading:
    """A reading of the tokens at ``place (B, L)``."""

    def move(scores: Tensor) -> Tensor:
        index = place.view(len(place), *[1] * (scores.ndim - 2), -1)
        return scores.gather(-1, index.expand_as(scores))

    values = None if reading.values is None else move(reading.values)
    readout = None if reading.readout is None else move(reading.readout)
    return LayerReading(move(reading.heads), values, readout=readout)
