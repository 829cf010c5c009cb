"""Explainers that know nothing, or should not be trusted to, for comparison.

Random and trivial: Pruthi et al. 2022.
"""

import zlib

import torch

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import Labels, Saliency, TokenMask, TokenScores


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


def trivial_saliency(
    explainable: TokenMask, predictions: Labels, percent: float = 10.0
) -> Saliency:
    """Tells the class by position: uniform over the first 10 % of a row's explainable tokens for
    class 0, over the next 10 % for class 1, and so on; beyond the row's end from its start.

    ``n = max(1, ceil(10 %))`` tokens for each class; every row needs an explainable token.
    """
    tokens = explainable.sum(-1, keepdim=True)
    count = (tokens.double() * percent / 100 - 1e-9).ceil().clamp_min(1).long()
    place = (explainable.cumsum(-1) - 1 - predictions[:, None] * count) % tokens
    return torch.where(explainable & (place < count), 1.0 / count, 0.0)


class TrivialScores(Explainer):
    """:func:`trivial_saliency` of the model's own prediction.

    It leaks the label and explains nothing (Pruthi et al. 2022): a student without explanations
    at test time must not gain by it.
    """

    name = "trivial"
    summary = "leaks the prediction: the first 10 % of tokens for one class, the next for another"
    is_saliency = True

    @torch.no_grad()
    def explain(self, backbone: Backbone, batch: Batch) -> Saliency:
        return trivial_saliency(batch.explainable, backbone.encode(batch).logits.argmax(-1))


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
