"""Comprehensiveness: without the tokens of the explanation the prediction should fall.

Xie et al. 2024 (IvRA), equation 10; metric of equation 8 (DeYoung et al. 2020, ERASER).
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


def comprehensiveness_loss(
    full: Outputs,
    without: Outputs,
    form: RemovalForm = "margin",
    margin: float = 1.0,
    task: Task = CLASSIFICATION,
) -> Rows:
    """How little the prediction suffers without the tokens of the explanation.

    ``full`` are the logits of the whole row, ``without`` those of ``x \\ t_k``, ``CE`` the
    cross-entropy with ``y_hat``, what is predicted from ``full``:

    * ``"margin"``: ``mu + max(-mu, CE(M(x)) - CE(M(x \\ t_k)))`` (IvRA eq. 10), at least 0; 0
      once removing the tokens costs ``margin`` nats.
    * ``"difference"``: ``CE(M(x)) - CE(M(x \\ t_k))``, unbounded below.
    * ``"probability"``: ``p(x \\ t_k) - p(x)`` of ``y_hat``, minus what the metric is a mean of
      (eq. 8), in ``[-1, 1]``; all others are in nats.
    * ``"absolute"``, ``"kl"``: minus ``|CE(M(x \\ t_k)) - CE(M(x))|`` and minus
      ``KL(M(x \\ t_k) || M(x))``, at most 0: the paper has both for sufficiency alone (eq. 16,
      17), where the change is to be small; here it is to be large, whichever way it goes.
    """
    change = prediction_change(full, without, form, task)
    return margin + torch.clamp_min(-change, -margin) if form == "margin" else -change


class Comprehensiveness(Criterion):
    """Trains the tokens that the prediction needs to the top of the saliency.

    The metric is AOPC comprehensiveness, the mean over ``bins`` of ``p(y_hat | x) -
    p(y_hat | x \\ t_k)``: a difference of probabilities in ``[-1, 1]``.

    Args:
        form: of the loss, see :func:`comprehensiveness_loss`.
        margin: ``mu`` in nats of the form ``"margin"``; the paper's 1 by default.
        bins_mode: a training step draws one of ``bins``, takes the next, or the mean over all.
        temperature: of the cut's gradient, see :func:`~ivra.losses.soft_top_k` and
            :func:`~ivra.losses.sampled_loss`.
        samples: of the gradients ``"perturbed"`` and ``"sampled"``.
        bins: the percentages ``k``.
        gradient: how the cut at ``k`` is differentiated.
        seed: of the draws.
    """

    name = "comp"
    better = "higher"
    derivative = "cut"

    def __init__(
        self,
        form: RemovalForm = "margin",
        margin: Margin = 1.0,
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
            without = view.rerun(1 - cut)
            return comprehensiveness_loss(view.logits, without, self.form, self.margin, view.task)

        return Terms(comp=self._cuts.mean(view, loss))

    def metric(self, view: View) -> Rows:
        return aopc(view, self.bins, keep_top=False)
