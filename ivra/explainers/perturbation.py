"""Attributions from what the model says of a row with tokens taken out, by captum.

A row is seen as one feature a token, 1 where it is there and 0 where it is not; the value
explained is ``p(y_hat)``, a probability, as in comprehensiveness and sufficiency. By default a
token that is not there is deleted (of a question and its context: replaced by the mask token,
:attr:`~ivra.tasks.Task.removal`); as a ``baseline`` its embedding can be replaced instead.
"""

import zlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import FeatureAblation, KernelShap, Lime
from captum.attr._core.lime import get_exp_kernel_similarity_function
from pydantic import Field
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch, Item, collate
from ivra.explainers.baselines import baseline_embeddings
from ivra.explainers.explainer import BATCH_TOKENS, Explainer
from ivra.shapes import TokenScores

SAMPLES = 500
"""Perturbed texts of a row that LIME and KernelSHAP look at."""

Absent = Literal["delete", "mask", "pad", "zero"]
"""What becomes of a token that is not there: deleted, the others closing up, or its embedding
replaced as in :data:`ivra.explainers.baselines.Baseline`."""
Present = Callable[[Tensor], Tensor]
"""``p(y_hat)`` of texts ``(N, F)``, 1 where an explainable token is there."""


class _Perturbation(Explainer):
    """One row after the other; a row's scores depend on nothing but the row."""

    def __init__(self, baseline: Absent, batch_tokens: int) -> None:
        self.baseline = baseline
        self.batch_tokens = batch_tokens

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        scores = torch.zeros(batch.explainable.shape)
        for row, item in enumerate(batch.items):
            mask = batch.explainable[row].cpu()
            present = _present(backbone, item, self.baseline)
            at_once = max(1, self.batch_tokens // len(item.input_ids))
            with torch.random.fork_rng(devices=[]):  # captum draws here and there
                found = self._scores(present, int(mask.sum()), item.row.id, at_once)
            scores[row, mask] = found
        return scores.to(backbone.device)

    @abstractmethod
    def _scores(self, present: Present, tokens: int, row: str, at_once: int) -> Tensor:
        """One score for each of the explainable tokens, from ``at_once`` texts at a time."""


class _Sampled(_Perturbation):
    """Looks at ``samples`` texts of a row; what is drawn depends on the seed and the row's id."""

    def __init__(
        self,
        samples: Annotated[int, Field(ge=2)] = SAMPLES,
        seed: int = 0,
        baseline: Absent = "delete",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        super().__init__(baseline, batch_tokens)
        self.samples = samples
        self.seed = seed


@torch.no_grad()
def _present(backbone: Backbone, item: Item, baseline: Absent) -> Present:
    one = collate([item], backbone.pad_id).to(backbone.device)
    explainable = one.explainable[0].cpu()
    y_hat = backbone.encode(one).predictions
    own = backbone.embed(one.input_ids)
    other = own if baseline == "delete" else baseline_embeddings(backbone, one, baseline)

    @torch.no_grad()
    def probabilities(features: Tensor) -> Tensor:
        batch = collate([item] * len(features), backbone.pad_id).to(backbone.device)
        keep = torch.ones(len(features), len(explainable))
        keep[:, explainable] = features.float().cpu()
        keep = keep.to(backbone.device)
        if baseline == "delete":
            logits = backbone.rerun(batch, keep, backbone.task.removal)
        else:
            embeddings = torch.where(keep[..., None] > 0, own, other)
            logits = backbone.encode(batch, embeddings=embeddings).logits
        told = y_hat.expand(len(features), *y_hat.shape[1:])
        return backbone.task.probability(logits, told).cpu()

    return probabilities


class Occlusion(_Perturbation):
    """``p(y_hat | x) - p(y_hat | x without the token)``: each token taken out alone.

    Signed, in ``[-1, 1]``; one text a token. (Zeiler and Fergus 2014, arXiv:1311.2901; "erasure"
    in Li et al. 2016, arXiv:1612.08220.)
    """

    name = "occlusion"
    summary = "leave-one-out: what deleting a token costs the prediction (captum)"

    def __init__(self, baseline: Absent = "delete", batch_tokens: int = BATCH_TOKENS) -> None:
        super().__init__(baseline, batch_tokens)

    def _scores(self, present: Present, tokens: int, row: str, at_once: int) -> Tensor:
        found: Tensor = FeatureAblation(present).attribute(
            torch.ones(1, tokens), 0, perturbations_per_eval=at_once
        )
        return found[0]


class LIME(_Sampled):
    """LIME for text (Ribeiro et al. 2016, arXiv:1602.04938): coefficients of a weighted ridge
    regression of ``p(y_hat)`` on which tokens are there.

    As in the authors' package: a text loses a number of its tokens that is drawn evenly, weights
    are ``exp(-d^2 / (2 * 0.25^2))`` with ``d`` the cosine distance from the whole text, the ridge
    penalty is 1. All tokens are regressed on (no selection of ten). Signed. ``samples`` forward
    passes a row; the draws depend on ``seed`` and the row's id alone.
    """

    name = "lime"
    summary = f"LIME, {SAMPLES} perturbed texts a row (captum)"

    def _scores(self, present: Present, tokens: int, row: str, at_once: int) -> Tensor:
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
            perturbations_per_eval=at_once,
        )
        return found[0]


def _lime_texts(tokens: int, samples: int, generator: torch.Generator) -> Tensor:
    """``(samples, F)``: the whole text, then texts without 1 to F tokens, each number as likely."""
    order = torch.rand(samples, tokens, generator=generator).argsort(-1)
    gone = torch.randint(1, tokens + 1, (samples, 1), generator=generator)
    texts = (order >= gone).float()
    texts[0] = 1
    return texts


class KernelSHAP(_Sampled):
    """KernelSHAP (Lundberg and Lee 2017, arXiv:1705.07874): Shapley values of ``p(y_hat)``, a
    token that is not there being one that does not play.

    The scores of a row add up to ``p(x) - p(x without all explainable tokens)``. Signed.
    ``samples`` forward passes a row; the draws depend on ``seed`` and the row's id alone.
    """

    name = "kernel-shap"
    summary = f"KernelSHAP, {SAMPLES} coalitions a row (captum)"

    def _scores(self, present: Present, tokens: int, row: str, at_once: int) -> Tensor:
        whole = torch.ones(1, tokens)
        if tokens == 1:  # nothing to share
            return present(whole) - present(0 * whole)
        torch.manual_seed(_seed(self.seed, row))
        found: Tensor = KernelShap(present).attribute(
            whole, baselines=0, n_samples=self.samples, perturbations_per_eval=at_once
        )
        return found[0]


def _seed(seed: int, row: str) -> int:
    return zlib.crc32(f"{seed}:{row}".encode())
