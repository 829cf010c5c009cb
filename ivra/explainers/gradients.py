"""Gradient attributions, by captum."""

from dataclasses import replace

import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import TokenScores


class InputXGradient(Explainer):
    """``sum_e x_e * d logit / d x_e`` over a token's embedding ``x``, for the predicted class.

    Signed. Zero is the implied baseline.
    """

    name = "input-x-gradient"
    summary = "Input x Gradient of the predicted class's logit (captum)"

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        moved, back = backbone.head_first(batch)

        def logits(ids: Tensor) -> Tensor:
            return backbone.encode(replace(moved, input_ids=ids)).logits

        with torch.no_grad():
            target = logits(moved.input_ids).argmax(-1)
        with torch.enable_grad():
            attribution = LayerGradientXActivation(logits, backbone.embeddings).attribute(
                moved.input_ids, target=target
            )
        scores = attribution.detach().sum(-1)
        scores = scores if back is None else scores.gather(1, back)
        return scores * batch.explainable
