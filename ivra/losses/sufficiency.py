"""Sufficiency: the tokens of the explanation alone should carry the prediction.

Xie et al. 2024 (IvRA), equations 11, 16, 17; metric of equation 9 (DeYoung et al. 2020, ERASER).
"""

import torch

from ivra.losses.criterion import AOPC_BINS, Criterion, Terms, View
from ivra.losses.removal import (
    BinsMode,
    Cuts,
    Margin,
    RemovalForm,
    Samples,
    Width,
    aopc,
    prediction_change,
)
from ivra.losses.topk import SAMPLES
from ivra.shapes import Outputs, Rows, TokenScores
from ivra.tasks import CLASSIFICATION, Task


def sufficiency_loss(
    full: Outputs,
    only: Outputs,
    form: RemovalForm = "margin",
    margin: float = 0.1,
    task: Task = CLASSIFICATION,
) -> Rows:
    """How much the prediction suffers where only the tokens of the explanation are left.

    ``full`` are the logits of the whole row, ``only`` those of ``t_k``, ``CE`` the cross-entropy
    with ``y_hat``, what is predicted from ``full``:

    * ``"margin"``: ``mu + max(-mu, CE(M(t_k)) - CE(M(x)))`` (IvRA eq. 11), at least 0; 0 once the
      tokens alone are ``margin`` nats better than the whole row.
    * ``"difference"``: ``CE(M(t_k)) - CE(M(x))``, at least ``-CE(M(x))``.
    * ``"probability"``: ``p(x) - p(t_k)`` of ``y_hat``, what the metric is a mean of (eq. 9), in
      ``[-1, 1]``; all others are in nats.
    * ``"absolute"``: ``|CE(M(t_k)) - CE(M(x))|`` (eq. 16), at least 0: the tokens should carry
      the prediction just as surely as the whole row.
    * ``"kl"``: ``KL(M(t_k) || M(x))`` (eq. 17), at least 0: so for every class.
    """
    change = prediction_change(full, only, form, task)
    return margin + torch.clamp_min(change, -margin) if form == "margin" else change


class Sufficiency(Criterion):
    """Trains the tokens that suffice for the prediction to the top of the saliency.

    The metric is AOPC sufficiency, the mean over ``bins`` of ``p(y_hat | x) - p(y_hat | t_k)``:
    a difference of probabilities in ``[-1, 1]``, lower is better, negative where the tokens
    alone convince the model more than the whole text.

    Args:
        form: of the loss, see :func:`sufficiency_loss`.
        margin: ``mu`` in nats of the form ``"margin"``; the paper's 0.1 by default.
        bins_mode: a training step draws one of ``bins``, takes the next, or the mean over all.
        temperature: of the cut's gradient, see :func:`~ivra.losses.soft_top_k` and
            :func:`~ivra.losses.sampled_loss`.
        samples: of the gradients ``"perturbed"`` and ``"sampled"``.
        bins: the percentages ``k``.
        gradient: how the cut at ``k`` is differentiated.
        seed: of the draws.
    """

    name = "suff"
    better = "lower"
    derivative = "cut"

    def __init__(
        self,
        form: RemovalForm = "margin",
        margin: Margin = 0.1,
        bins_mode: BinsMode = "draw",
        temperature: Width = 1.0,
        samples: Samples = SAMPLES,
        *,
        bins: tuple[float, ...] = AOPC_BINS,
        gradient: str = "straight-through",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.form = form
        self.margin = margin
        self.bins = bins
        self._cuts = Cuts(bins, bins_mode, gradient, temperature, samples, seed)

    def forward(self, view: View) -> Terms:
        def loss(cut: TokenScores) -> Rows:
            only = view.rerun(cut)
            return sufficiency_loss(view.logits, only, self.form, self.margin, view.task)

        return Terms(suff=self._cuts.mean(view, loss))

    def metric(self, view: View) -> Rows:
        return aopc(view, self.bins, keep_top=True)
