"""Attention probabilities as explanations: how much attention a token receives."""

import torch

from ivra.attention import LayerInputs, LayerReading
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import Saliency, TokenScores


class ReceivedAttention:
    """Reads the mean attention probability that each token receives, ``(B, H, L)`` a layer.

    The mean is over the visible queries. One layer's ``L x L`` probabilities exist at a time.
    """

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        """Softmax of the masked logits, averaged over queries."""
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
        queries = inputs.visible.to(logits)[:, None, :, None]
        received = (logits.softmax(-1) * queries).sum(2) / queries.sum(2)
        return LayerReading(received, None)


def _normalised(scores: TokenScores, batch: Batch) -> Saliency:
    kept = scores * batch.explainable
    return kept / kept.sum(-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)


class MeanAttention(Explainer):
    """Attention received, averaged over all heads of all layers."""

    name = "attention"
    summary = "attention received, mean over all layers and heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        readings = backbone.encode(batch, ReceivedAttention()).readings
        return _normalised(torch.stack([r.heads.mean(1) for r in readings]).mean(0), batch)


class LastLayerAttention(Explainer):
    """Attention received in the last layer, averaged over its heads."""

    name = "attention-last"
    summary = "attention received in the last layer, mean over its heads"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        readings = backbone.encode(batch, ReceivedAttention()).readings
        return _normalised(readings[-1].heads.mean(1), batch)
