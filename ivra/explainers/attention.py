"""Attention probabilities as explanations: who attends to a token, and how much."""

from typing import Literal

import torch
from torch import Tensor

from ivra.attention import LayerInputs, LayerReader, LayerReading
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer, check_place
from ivra.explainers.projection import to_simplex
from ivra.shapes import Labels, Saliency


def attention_probabilities(inputs: LayerInputs) -> Tensor:
    """Softmax of the masked logits, ``(B, H, L, L)``: what each query (third) gives each key."""
    query, key = inputs.query, inputs.key
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    logits = (query @ key.transpose(-1, -2) * inputs.scaling).float()
    mask = inputs.mask
    if mask is None and inputs.causal:
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
    elif mask is not None:
        logits = logits + mask
    return logits.softmax(-1)


class ReceivedAttention:
    """Reads the mean attention probability that each token receives, ``(B, H, L)`` a layer.

    The mean is over the visible queries. One layer's ``L x L`` probabilities exist at a time.
    """

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """Attention averaged over queries."""
        probabilities = attention_probabilities(inputs)
        queries = inputs.visible.to(probabilities)[:, None, :, None]
        return LayerReading((probabilities * queries).sum(2) / queries.sum(2), None)


class GivenAttention:
    """Reads the attention probability that the token at ``place`` of its row gives each token.

    ``(B, H, L)`` a layer; ``place (B,)`` counts in the model's own order.
    """

    def __init__(self, place: Labels) -> None:
        self.place = place

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """One row of each head's attention."""
        return LayerReading(inputs.attending.given_by(self.place[:, None])[:, 0], None)


class RolledAttention:
    """Reads attention rollout up to each layer, for the token at ``place``, ``(B, 1, L)``.

    ``R_l = (A_l / 2 + I / 2) R_(l-1)``, ``R_0 = I``, with ``A_l`` the mean over heads (Abnar and
    Zuidema 2020, arXiv:2005.00928, eq. 1 and section 2). One ``L x L`` product is kept a row.
    """

    def __init__(self, place: Labels) -> None:
        self.place = place
        self.product: Tensor | None = None

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """The row of ``place`` after one layer more."""
        mean = attention_probabilities(inputs).mean(1)
        mixed = (mean + torch.eye(mean.shape[-1], device=mean.device)) / 2
        self.product = mixed if self.product is None else mixed @ self.product
        rows = torch.arange(len(self.place), device=self.place.device)
        return LayerReading(self.product[rows, self.place][:, None], None)


def _pooled(backbone: Backbone, batch: Batch) -> Labels:
    """The token that the head reads, counted in the model's own order."""
    return backbone.pooled_place(backbone.head_first(batch)[0])


def _read(backbone: Backbone, batch: Batch, reader: LayerReader) -> tuple[Tensor, ...]:
    """Each layer's ``(B, H, L)``."""
    return tuple(reading.heads for reading in backbone.encode(batch, reader).readings)


class MeanAttention(Explainer):
    """Attention received, averaged over all heads of all layers."""

    name = "attention"
    summary = "attention received, mean over all layers and heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        layers = _read(backbone, batch, ReceivedAttention())
        mean = torch.stack([heads.mean(1) for heads in layers]).mean(0)
        return to_simplex(mean, batch.explainable, "positive")


class LastLayerAttention(Explainer):
    """Attention received in the last layer, averaged over its heads."""

    name = "attention-last"
    summary = "attention received in the last layer, mean over its heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        layers = _read(backbone, batch, ReceivedAttention())
        return to_simplex(layers[-1].mean(1), batch.explainable, "positive")


class PooledAttention(Explainer):
    """Attention that the token which the classification head reads gives in the last layer,
    averaged over its heads: [CLS] of an encoder, the last visible token of a decoder."""

    name = "attention-cls"
    summary = "attention of [CLS] (decoder: the last token) in the last layer, mean over its heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        layers = _read(backbone, batch, GivenAttention(_pooled(backbone, batch)))
        return to_simplex(layers[-1].mean(1), batch.explainable, "positive")


class HeadAttention(Explainer):
    """Attention in a single head, ``head`` of ``layer``, negative as in Python.

    ``queries="all"`` is what a token receives, mean over the visible queries (so that the mean
    over the heads of the last layer is ``attention-last``, up to scale); ``"pooled"`` is what the
    token that the classification head reads gives, as in ``attention-cls``.
    """

    name = "attention-head"
    summary = "attention received in a single head"
    is_saliency = True

    def __init__(
        self, layer: int = -1, head: int = 0, queries: Literal["all", "pooled"] = "all"
    ) -> None:
        self.layer = layer
        self.head = head
        self.queries = queries

    def check(self, backbone: Backbone) -> None:
        check_place("attention-head:layer", self.layer, backbone.sizes.layers, "layers")
        check_place("attention-head:head", self.head, backbone.sizes.heads, "heads")

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        self.check(backbone)
        reader: LayerReader = ReceivedAttention()
        if self.queries == "pooled":
            reader = GivenAttention(_pooled(backbone, batch))
        heads = _read(backbone, batch, reader)[self.layer]
        return to_simplex(heads[:, self.head], batch.explainable, "positive")


class AttentionRollout(Explainer):
    """Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928): how much of the token that the
    classification head reads comes from each token, if half of every layer's output is its
    attention's weighted mean (over heads) and half what was there before."""

    name = "attention-rollout"
    summary = "attention rollout to [CLS] (decoder: to the last token), mean over heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        layers = _read(backbone, batch, RolledAttention(_pooled(backbone, batch)))
        return to_simplex(layers[-1][:, 0], batch.explainable, "positive")
