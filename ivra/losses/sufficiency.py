"""Sufficiency: the tokens of the explanation alone should carry the prediction.

Xie et al. 2024 (IvRA), equation 11; metric of equation 9 (DeYoung et al. 2020, ERASER).
"""

from typing import Self

import torch
from torch.nn import functional

from ivra.losses.criterion import AOPC_BINS, Criterion, Setup, Terms, View
from ivra.losses.removal import BinDrawer, aopc
from ivra.losses.topk import soft_top_k
from ivra.shapes import Rows


def sufficiency_loss(full: Rows, only: Rows, margin: float) -> Rows:
    """``mu + max(-mu, CE(M(t_k)) - CE(M(x)))`` in nats, at least 0 (IvRA eq. 11).

    ``full`` and ``only`` are the cross-entropies of ``y_hat``. Zero once the tokens alone are
    at least ``margin`` nats better than the whole text.
    """
    return margin + torch.clamp_min(only - full, -margin)


class Sufficiency(Criterion):
    """Trains the tokens that suffice for the prediction to the top of the saliency.

    The metric is AOPC sufficiency, the mean over ``bins`` of ``p(y_hat | x) - p(y_hat | t_k)``:
    a difference of probabilities in ``[-1, 1]``, lower is better, negative where the tokens
    alone convince the model more than the whole text.

    Args:
        margin: ``mu`` in nats; the paper's 0.1 by default.
        bins: the percentages ``k``; a training step draws one of them.
        gradient: how the cut at ``k`` is differentiated, see :func:`~ivra.losses.soft_top_k`.
        seed: of the draw.
    """

    name = "suff"
    better = "lower"
    derivative = "cut"

    def __init__(
        self,
        margin: float = 0.1,
        bins: tuple[float, ...] = AOPC_BINS,
        gradient: str = "straight-through",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.bins = bins
        self.gradient = gradient
        self._draw = BinDrawer(bins, seed)

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(bins=setup.bins, gradient=setup.gradient, seed=setup.seed)

    def forward(self, view: View) -> Terms:
        cut = soft_top_k(view.saliency, view.explainable, self._draw(), self.gradient)
        only = view.rerun(cut)
        full = functional.cross_entropy(view.logits, view.predictions, reduction="none")
        alone = functional.cross_entropy(only, view.predictions, reduction="none")
        return Terms(suff=sufficiency_loss(full, alone, self.margin))

    def metric(self, view: View) -> Rows:
        return aopc(view, self.bins, keep_top=True)
