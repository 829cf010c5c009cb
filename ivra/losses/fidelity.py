"""Fidelity: the scores of the tokens, added up, say what the model says of texts without some.

Ribeiro et al. 2016 (LIME), local fidelity; learnt for all rows at once as in Jethani et al. 2022
(FastSHAP, arXiv:2107.07436).
"""

import math
import zlib
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ivra.losses.criterion import Criterion, Terms, View
from ivra.shapes import Rows, Saliency, TokenMask

FidelityForm = Literal["correlation", "squared"]
Target = Literal["probability", "log-odds"]
TEXTS = 8
_MOST_ODDS = 6.0
"""Log-odds are clipped here: beyond it the model is as sure as it can be told to be."""
_LEAST = 1e-6


def thinned_texts(ids: Tensor, explainable: TokenMask, texts: int, seed: int) -> Tensor:
    """0/1 keeps ``(M, B, L)``: each text lacks 1 to all of a row's explainable tokens.

    As LIME draws texts: how many are lost is drawn evenly, then which. The draws depend on
    ``seed`` and on the row's own visible tokens, so not on the batch around it.
    """
    keep = torch.ones((texts, *explainable.shape))
    for row, (own, mask) in enumerate(zip(ids.cpu(), explainable.cpu(), strict=True)):
        count = int(mask.sum())
        if not count:
            continue
        generator = torch.Generator().manual_seed(
            zlib.crc32(str((seed, own[mask].tolist())).encode())
        )
        order = torch.rand(texts, count, generator=generator).argsort(-1)
        lost = torch.randint(1, count + 1, (texts, 1), generator=generator)
        keep[:, row, mask] = (order >= lost).float()
    return keep.to(explainable.device)


def unexplained(said: Tensor, sizes: Tensor) -> Tensor:
    """``said (M, B)`` about its least-squares line in ``sizes (M, B)``, over the texts of a row."""
    said, sizes = said - said.mean(0), sizes - sizes.mean(0)
    slope = (said * sizes).sum(0) / sizes.square().sum(0).clamp_min(_LEAST)
    return said - slope * sizes


def fidelity_sides(
    saliency: Saliency, explainable: TokenMask, keep: Tensor, said: Tensor
) -> tuple[Tensor, Tensor]:
    """What the scores and what the model say of the texts ``keep (M, B, L)``: ``(M, B)`` each.

    With ``s = log r`` it is ``sum_j keep_j s_j``; both are taken about their least-squares line in
    the number of tokens kept, since a saliency fixes ``s`` up to a constant a row.
    """
    wide = torch.promote_types(saliency.dtype, torch.float32)
    score = saliency.to(wide).clamp_min(torch.finfo(wide).tiny ** 0.5).log() * explainable
    keep = keep.to(wide) * explainable
    sizes = keep.sum(-1)
    return unexplained((keep * score).sum(-1), sizes), unexplained(said.to(wide), sizes)


def correlation(one: Tensor, other: Tensor) -> Rows:
    """Pearson's correlation over the texts of two columns with mean 0, ``(B,)``, in ``[-1, 1]``.

    1e-6 is added to both sums of squares: it is 0, not undefined, where either is constant.
    """
    squares = (one.square().sum(0) + _LEAST) * (other.square().sum(0) + _LEAST)
    return (one * other).sum(0) / squares.sqrt()


class Fidelity(Criterion):
    r"""Trains the saliency into a linear surrogate of the model around each row, as LIME fits one.

    For texts ``z`` that lack some of a row's tokens, ``f(z)`` what the model says of ``y_hat``
    and ``s = log r``::

        squared       1/M sum_m (f~(z_m) - sum_j z~_mj s_j)^2
        correlation   1 - corr_m(f~(z_m), sum_j z~_mj s_j)

    with ``~`` what is left beside a constant and a multiple of the number of tokens kept. LIME
    solves this for each row from hundreds of texts; here a few texts a row and step teach what all
    rows share. The metric is the correlation in ``[-1, 1]``, higher is better, NaN where the model
    says the same of all texts.

    Args:
        form: of the loss; ``correlation`` leaves the sharpness of the saliency alone.
        target: ``f``, the probability of ``y_hat`` or its log-odds (in nats, at most 6).
        texts: ``M``, reruns of a row and step.
        seed: of the draws.
    """

    name = "fidelity"
    better = "higher"

    def __init__(
        self,
        form: FidelityForm = "correlation",
        target: Target = "probability",
        texts: Annotated[int, Field(ge=3)] = TEXTS,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.form = form
        self.target = target
        self.texts = texts
        self._seed = seed
        self._step = 0

    def forward(self, view: View) -> Terms:
        self._step += 1
        ours, model = self._both(view, self._step)
        if self.form == "correlation":
            return Terms(fidelity=1 - correlation(ours, model))
        return Terms(fidelity=(ours - model).square().mean(0))

    def metric(self, view: View) -> Rows:
        ours, model = self._both(view, 0)
        varies = model.square().sum(0) > _LEAST
        return torch.where(varies, correlation(ours, model), torch.nan)

    def _both(self, view: View, step: int) -> tuple[Tensor, Tensor]:
        seed = self._seed + 1_000_003 * step
        keep = thinned_texts(view.batch.input_ids, view.explainable, self.texts, seed)
        with torch.no_grad():
            said = torch.stack([self._said(view, k.to(view.saliency)) for k in keep])
        return fidelity_sides(view.saliency, view.explainable, keep, said)

    def _said(self, view: View, keep: Tensor) -> Rows:
        log_p = view.task.log_prob(view.rerun(keep), view.predictions)
        log_p = log_p.to(torch.promote_types(log_p.dtype, torch.float32))
        if self.target == "probability":
            return log_p.exp()
        rest = (-log_p.expm1()).clamp_min(math.exp(-2 * _MOST_ODDS)).log()
        return (log_p - rest).clamp(-_MOST_ODDS, _MOST_ODDS)
