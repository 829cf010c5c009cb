"""Comprehensiveness: without the tokens of the explanation the prediction should fall.

Xie et al. 2024 (IvRA), equation 10; metric of equation 8 (DeYoung et al. 2020, ERASER).
"""

from typing import Self

import torch
from torch.nn import functional

from ivra.losses.criterion import AOPC_BINS, Criterion, Setup, Terms, View
from ivra.losses.removal import BinDrawer, aopc
from ivra.losses.topk import soft_top_k
from ivra.shapes import Rows


def comprehensiveness_loss(full: Rows, without: Rows, margin: float) -> Rows:
    """``mu + max(-mu, CE(M(x)) - CE(M(x \\ t_k)))`` in nats, at least 0 (IvRA eq. 10).

    ``full`` and ``without`` are the cross-entropies of ``y_hat``. Zero once removing the tokens
    costs at least ``margin`` nats.
    """
    return margin + torch.clamp_min(full - without, -margin)


class Comprehensiveness(Criterion):
    """Trains the tokens that the prediction needs to the top of the saliency.

    The metric is AOPC comprehensiveness, the mean over ``bins`` of ``p(y_hat | x) -
    p(y_hat | x \\ t_k)``: a difference of probabilities in ``[-1, 1]``.

    Args:
        margin: ``mu`` in nats; the paper's 1 by default.
        bins: the percentages ``k``; a training step draws one of them.
        gradient: how the cut at ``k`` is differentiated, see :func:`~ivra.losses.soft_top_k`.
        seed: of the draw.
    """

    name = "comp"
    better = "higher"
    derivative = "cut"

    def __init__(
        self,
        margin: float = 1.0,
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
        without = view.rerun(1 - cut)
        full = functional.cross_entropy(view.logits, view.predictions, reduction="none")
        removed = functional.cross_entropy(without, view.predictions, reduction="none")
        return Terms(comp=comprehensiveness_loss(full, removed, self.margin))

    def metric(self, view: View) -> Rows:
        return aopc(view, self.bins, keep_top=False)
