"""What an attention layer hands to a reader, and what a reader gives back."""

from typing import NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from ivra.shapes import ClassLogits, HeadLogits, KeyValue, Query, TokenMask


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


class LayerReading(NamedTuple):
    """One layer reduced to what a saliency needs: nothing of size ``L x L``.

    ``heads`` is each head's score of every token; ``values`` the value level's evidence of
    every token for every class, followed by its shares of the hidden units' sums (``None`` where
    that level is off).
    """

    heads: HeadLogits
    values: ClassLogits | None


@runtime_checkable
class LayerReader(Protocol):
    """Whatever reduces a layer's inputs inside the attention function."""

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """Reduce the inputs of layer ``layer`` (counted from 0)."""
        ...
