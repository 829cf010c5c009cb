"""Attributions from what the model says of a row with tokens deleted, by captum.

A row is seen as one feature a token, 1 where it is there and 0 where it is deleted (of a question
and its context: replaced by the mask token, :attr:`~ivra.tasks.Task.removal`); the value
explained is ``p(y_hat)``, a probability, as in comprehensiveness and sufficiency.
"""

import zlib
from abc import abstractmethod
from collections.abc import Callable

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import FeatureAblation, KernelShap, Lime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch, Item, collate
from ivra.explainers.explainer import Explainer
from ivra.shapes import TokenScores

SAMPLES = 500
"""Perturbed texts of a row that LIME and KernelSHAP look at."""
AT_ONCE = 64
"""Perturbed texts in one forward pass."""

Present = Callable[[Tensor], Tensor]
"""``p(y_hat)`` of texts ``(N, F)``, 1 where an explainable token is there."""


class _Perturbation(Explainer):
    """One row after the other; a row's scores depend on nothing but the row."""

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        scores = torch.zeros(batch.explainable.shape)
        for row, item in enumerate(batch.items):
            mask = batch.explainable[row].cpu()
            with torch.random.fork_rng(devices=[]):  # captum draws here and there
                found = self._scores(_present(backbone, item), int(mask.sum()), item.row.id)
            scores[row, mask] = found
        return scores.to(backbone.device)

    @abstractmethod
    def _scores(self, present: Present, tokens: int, row: str) -> Tensor:
        """One score for each of the explainable tokens."""


def _present(backbone: Backbone, item: Item) -> Present:
    explainable = torch.tensor(item.explainable)

    @torch.no_grad()
    def probabilities(features: Tensor) -> Tensor:
        batch = collate([item] * len(features), backbone.pad_id).to(backbone.device)
        keep = torch.ones(len(features), len(explainable))
        keep[:, explainable] = features.float().cpu()
        logits = backbone.rerun(batch, keep.to(backbone.device), backbone.task.removal)
        told = y_hat.expand(len(features), *y_hat.shape[1:])
        return backbone.task.probability(logits, told).cpu()

    with torch.no_grad():
        one = collate([item], backbone.pad_id).to(backbone.device)
        y_hat = backbone.encode(one).predictions
    return probabilities


class Occlusion(_Perturbation):
    """``p(y_hat | x) - p(y_hat | x without the token)``: each token deleted alone.

    Signed, in ``[-1, 1]``; one forward pass a token. (Zeiler and Fergus 2014, arXiv:1311.2901;
    "erasure" in Li et al. 2016, arXiv:1612.08220.)
    """

    name = "occlusion"
    summary = "leave-one-out: what deleting a token costs the prediction (captum)"

    def _scores(self, present: Present, tokens: int, row: str) -> Tensor:
        found: Tensor = FeatureAblation(present).attribute(
            torch.ones(1, tokens), 0, perturbations_per_eval=AT_ONCE
        )
        return found[0]


class LIME(_Perturbation):
    """LIME for text (Ribeiro et al. 2016, arXiv:1602.04938): coefficients of a weighted ridge
    regression of ``p(y_hat)`` on which tokens are there.

    As in the authors' package: a text loses a number of its tokens that is drawn evenly, weights
    are ``exp(-d^2 / (2 * 0.25^2))`` with ``d`` the cosine distance from the whole text, the ridge
    penalty is 1. All tokens are regressed on (no selection of ten). Signed. ``samples`` forward
    passes a row; the draws depend on ``seed`` and the row's id alone.
    """

    name = "lime"
    summary = f"LIME, {SAMPLES} perturbed texts a row (captum)"

    def __init__(self, samples: int = SAMPLES, seed: int = 0) -> None:
        self.samples = samples
        self.seed = seed

    def _scores(self, present: Present, tokens: int, row: str) -> Tensor:
        generator = torch.Generator().manual_seed(_seed(self.seed, row))
        texts = iter(_lime_texts(tokens, self.samples, generator))
        lime = Lime(
            present,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=get_exp_kernel_similarity_function("cosine", kernel_width=0.25),
            perturb_func=lambda *_, **__: next(texts)[None],
        )
        found: Tensor = lime.attribute(
            torch.ones(1, tokens),
            baselines=0,
            n_samples=self.samples,
            perturbations_per_eval=AT_ONCE,
        )
        return found[0]


def _lime_texts(tokens: int, samples: int, generator: torch.Generator) -> Tensor:
    """``(samples, F)``: the whole text, then texts without 1 to F tokens, each number as likely."""
    order = torch.rand(samples, tokens, generator=generator).argsort(-1)
    gone = torch.randint(1, tokens + 1, (samples, 1), generator=generator)
    texts = (order >= gone).float()
    texts[0] = 1
    return texts


class KernelSHAP(_Perturbation):
    """KernelSHAP (Lundberg and Lee 2017, arXiv:1705.07874): Shapley values of ``p(y_hat)``, a
    deleted token being one that does not play.

    The scores of a row add up to ``p(x) - p(x without all explainable tokens)``. Signed.
    ``samples`` forward passes a row; the draws depend on ``seed`` and the row's id alone.
    """

    name = "kernel-shap"
    summary = f"KernelSHAP, {SAMPLES} coalitions a row (captum)"

    def __init__(self, samples: int = SAMPLES, seed: int = 0) -> None:
        self.samples = samples
        self.seed = seed

    def _scores(self, present: Present, tokens: int, row: str) -> Tensor:
        whole = torch.ones(1, tokens)
        if tokens == 1:  # nothing to share
            return present(whole) - present(0 * whole)
        torch.manual_seed(_seed(self.seed, row))
        found: Tensor = KernelShap(present).attribute(
            whole, baselines=0, n_samples=self.samples, perturbations_per_eval=AT_ONCE
        )
        return found[0]


def _seed(seed: int, row: str) -> int:
    return zlib.crc32(f"{seed}:{row}".encode())
