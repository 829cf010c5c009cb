"""Explanations read off the model's attention by an interpretable attention module."""

import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import Saliency


class ModuleExplainer(Explainer):
    """The saliency of an attention module, trained or not, from one forward pass."""

    name = "ivra"
    summary = "the trained attention module"
    is_saliency = True

    def __init__(self, module: InterpretableAttention) -> None:
        self.module = module

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        encoding = backbone.encode(batch, self.module)
        return self.module(encoding.readings, batch.explainable, encoding.classes)


class UntrainedExplainer(Explainer):
    """The module before training: a softmax of the mean of all heads' attention logits."""

    name = "untrained"
    summary = "the attention module before training (mean of all heads' attention logits)"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        module = InterpretableAttention(backbone.sizes, levels=()).to(backbone.device)
        return module(backbone.encode(batch, module).readings, batch.explainable)
