"""Explainers that know nothing, or should not be trusted to, for comparison.

Random and trivial: Pruthi et al. 2022.
"""

import zlib

import torch

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import Saliency, TokenScores


class RandomScores(Explainer):
    """Uniform random scores that depend on the row's id alone, so batching changes nothing."""

    name = "random"
    summary = "uniform random scores"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        scores = torch.zeros(batch.explainable.shape)
        for row, item in enumerate(batch.items):
            generator = torch.Generator().manual_seed(
                zlib.crc32(f"{self.seed}:{item.row.id}".encode())
            )
            mask = batch.explainable[row].cpu()
            scores[row, mask] = torch.rand(int(mask.sum()), generator=generator)
        return scores.to(backbone.device)


class TrivialScores(Explainer):
    """:func:`~ivra.tasks.trivial_saliency` of the model's own prediction; of an answer uniform
    over its tokens (:meth:`~ivra.tasks.Task.leak`).

    It leaks the label and explains nothing (Pruthi et al. 2022): a student without explanations
    at test time must not gain by it.
    """

    name = "trivial"
    summary = "leaks the prediction: the first 10 % of tokens for one class, the next for another"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        return backbone.task.leak(batch.explainable, backbone.encode(batch).predictions)


class MarkedTokens(Explainer):
    """The human (or planted) rationale itself: uniform over the marked tokens of a row.

    All 0, no point of the simplex, in rows in which nobody marked a token.
    """

    name = "true"
    summary = "the rationale of the data, uniform over its tokens"
    is_saliency = True

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        marks = batch.rationale.float()
        return marks / marks.sum(-1, keepdim=True).clamp_min(1)
