"""How sharp a module's saliency is where training begins."""

import math
from collections.abc import Iterable

import torch

from ivra.attention import InterpretableAttention, normaliser
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.losses import entropy_share

FARTHEST = 8.0
"""Furthest that the log of a temperature is moved."""
HALVINGS = 30


@torch.no_grad()
def begin_at_entropy(
    backbone: Backbone, module: InterpretableAttention, batches: Iterable[Batch], share: float
) -> None:
    """Set the temperature of ``module`` so that its saliencies have an entropy of ``share`` of the
    largest, see :func:`~ivra.losses.entropy_share`: the mean over the rows of ``batches``.

    All scores are multiplied by one factor, within ``exp(+-8)``, so their order stays. Nothing is
    done to a module that has no temperature, nor where all scores of every row are alike.
    """
    if not hasattr(module, "log_temperature"):
        return
    norm, found = normaliser(module.saliency_norm), []
    for batch in batches:
        encoding = backbone.encode(batch, module)
        found.append((module.scores(encoding.readings, encoding.classes), batch.explainable))
    if all((scores == 0).all() for scores, _ in found):
        return

    def mean_share(log_factor: float) -> float:
        rows = [entropy_share(norm(s * math.exp(log_factor), mask), mask) for s, mask in found]
        return torch.cat(rows).mean().item()

    low, high = -FARTHEST, FARTHEST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_share(middle) > share else (low, middle)
    module.log_temperature.add_((low + high) / 2)
