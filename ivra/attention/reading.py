"""What an attention layer hands to a reader, and what a reader gives back."""

from typing import NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from ivra.shapes import (
    ClassLogits,
    HeadLogits,
    KeyValue,
    Labels,
    Places,
    PlaceScores,
    Query,
    TokenMask,
)


class LayerInputs(NamedTuple):
    """Queries, keys and values of one layer, as the model itself uses them.

    They come after rotary embedding and before the attention kernel. ``scaling`` is the factor
    the model multiplies ``query . key`` by. ``visible`` is false on padding. ``mask`` is what
    the kernel receives (boolean, true = may attend, or additive; ``None`` = no mask) and
    ``causal`` says whether the kernel hides later keys where ``mask`` is ``None``.
    """

    query: Query
    key: KeyValue
    value: Tensor
    scaling: float
    visible: TokenMask
    mask: Tensor | None
    causal: bool

    def wide(self) -> Self:
        """The same in float32 at least."""
        states = (self.query, self.key, self.value)
        query, key, value = (s.to(torch.promote_types(s.dtype, torch.float32)) for s in states)
        return self._replace(query=query, key=key, value=value)

    @property
    def attending(self) -> "Attending":
        """The same without the values."""
        return Attending(self.query, self.key, self.scaling, self.visible, self.mask, self.causal)


def query_key_logits(query: Tensor, key: Tensor) -> HeadLogits:
    """``psi_j = query . k_j`` of each head (equation 4), of ``query (B, H, D)`` and a layer's keys.

    With grouped keys (``G < H``) each key serves ``H / G`` consecutive heads and is not copied.
    """
    batch, heads, dim = query.shape
    groups = key.shape[1]
    grouped = query.reshape(batch, groups, heads // groups, dim)
    return (grouped @ key.transpose(-1, -2)).reshape(batch, heads, -1)


class Attending(NamedTuple):
    """What it takes to say what a token of a layer attends to: as in :class:`LayerInputs`."""

    query: Query
    key: KeyValue
    scaling: float
    visible: TokenMask
    mask: Tensor | None
    causal: bool

    def given_by(self, places: Places) -> PlaceScores:
        """The attention probabilities that the tokens at ``places`` give, ``(B, P, H, L)``.

        Those of the model itself, of a few rows of its ``L x L``; float32 at least.
        """
        wide = torch.promote_types(self.query.dtype, torch.float32)
        key = self.key.to(wide)
        rows = torch.arange(len(places), device=places.device)
        given = []
        for place in places.unbind(1):
            query = self.query[rows, :, place].to(wide) * self.scaling
            logits = self._masked(query_key_logits(query, key), rows, place)
            least = torch.finfo(wide).min
            given.append(logits.masked_fill(~self.visible[:, None], least).softmax(-1))
        return torch.stack(given, dim=1)

    def _masked(self, logits: HeadLogits, rows: Labels, place: Labels) -> HeadLogits:
        """``logits`` under the line of the kernel's mask that belongs to ``place``."""
        least = torch.finfo(logits.dtype).min
        if self.mask is not None:
            line = self.mask.expand(len(rows), -1, -1, -1)[rows, :, place]
            return logits.masked_fill(~line, least) if line.dtype == torch.bool else logits + line
        if self.causal:
            later = torch.arange(logits.shape[-1], device=place.device) > place[:, None]
            return logits.masked_fill(later[:, None], least)
        return logits


class LayerReading(NamedTuple):
    """One layer reduced to what a saliency needs: nothing of size ``L x L``.

    ``heads`` is each head's score of every token; ``values`` the value level's evidence of
    every token for every class, followed by its shares of the hidden units' sums (``None`` where
    that level is off). The readout level needs to know what is predicted: a reader leaves
    ``attending``, and once the pass is over the backbone has ``readout`` in its place.
    """

    heads: HeadLogits
    values: ClassLogits | None
    attending: Attending | None = None
    readout: PlaceScores | None = None

    def settled(self, places: Places) -> "LayerReading":
        """With ``readout``, the attention that the tokens at ``places (B, P)`` give."""
        if self.attending is None:
            return self
        return self._replace(attending=None, readout=self.attending.given_by(places))


@runtime_checkable
class LayerReader(Protocol):
    """Whatever reduces a layer's inputs inside the attention function."""

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """Reduce the inputs of layer ``layer`` (counted from 0)."""
        ...
