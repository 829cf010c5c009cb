"""What comprehensiveness and sufficiency share: forms of loss, cuts of a step, AOPC by reruns.

Xie et al. 2024 (IvRA), equations 10, 11, 16, 17.
"""

import random
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import nn

from ivra.errors import unknown_name
from ivra.losses.criterion import View
from ivra.losses.topk import sampled_loss, soft_top_k, top_k
from ivra.shapes import Logits, Outputs, Rows, TokenScores
from ivra.tasks import CLASSIFICATION, Task

RemovalForm = Literal["margin", "difference", "probability", "absolute", "kl"]
BinsMode = Literal["draw", "cycle", "mean"]
Margin = Annotated[float, Field(ge=0)]
Width = Annotated[float, Field(gt=0)]
Samples = Annotated[int, Field(ge=2)]


def prediction_change(
    full: Outputs, reduced: Outputs, form: RemovalForm, task: Task = CLASSIFICATION
) -> Rows:
    """How far the logits of a reduced row are from those of the ``full`` one.

    With ``y_hat`` what is predicted from ``full`` and ``CE`` minus the log of its probability:

    * ``"margin"``, ``"difference"``: ``CE(reduced) - CE(full)``, positive where the prediction
      lost probability, in nats, unbounded on both sides (IvRA eq. 10, 11 inside the maximum).
    * ``"probability"``: ``p(y_hat | full) - p(y_hat | reduced)``, in ``[-1, 1]``: what the metric
      is a mean of (eq. 8, 9).
    * ``"absolute"``: ``|CE(reduced) - CE(full)|`` in nats (eq. 16).
    * ``"kl"``: ``KL(softmax reduced || softmax full)`` in nats (eq. 17), at least 0 up to rounding.

    Half precision is computed in float32.

    Raises:
        IvraError: unknown ``form``.
    """
    if form == "kl":
        return task.divergence(reduced, full)
    predicted = task.predict(full)
    log_full, log_reduced = task.log_prob(full, predicted), task.log_prob(reduced, predicted)
    if form == "probability":
        return log_full.exp() - log_reduced.exp()
    lost = log_full - log_reduced
    if form == "absolute":
        return lost.abs()
    if form not in ("margin", "difference"):
        raise unknown_name("form", form, list(get_args(RemovalForm)))
    return lost


class Cuts(nn.Module):
    """The cuts that a training step looks at, and how a loss is differentiated through them.

    ``mode`` says which of ``bins``: ``"draw"`` one at random, in an order that ``seed`` fixes;
    ``"cycle"`` one after another; ``"mean"`` all of them. ``gradient``, ``temperature`` and
    ``samples`` are those of :func:`~ivra.losses.soft_top_k`; with the gradient ``"sampled"`` of
    :func:`~ivra.losses.sampled_loss`.
    """

    def __init__(
        self,
        bins: tuple[float, ...],
        mode: BinsMode,
        gradient: str,
        temperature: float,
        samples: int,
        seed: int,
    ) -> None:
        super().__init__()
        self._bins = bins
        self._mode = mode
        self._gradient = gradient
        self._temperature = temperature
        self._samples = samples
        self._random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._turn = 0

    def get_extra_state(self) -> dict[str, Any]:
        """Where the draws and the cycle stand; PyTorch makes it a part of ``state_dict``."""
        version, words, gauss = self._random.getstate()
        return {
            "random": [version, list(words), gauss],
            "generator": self._generator.get_state(),
            "turn": self._turn,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        version, words, gauss = state["random"]
        self._random.setstate((version, tuple(words), gauss))
        self._generator.set_state(state["generator"])
        self._turn = state["turn"]

    def mean(self, view: View, loss: Callable[[TokenScores], Rows]) -> Rows:
        """The mean of ``loss(cut)`` over the cuts of the next step, each 1 on the top tokens."""
        losses = [self._at(percent, view, loss) for percent in self._percents()]
        return torch.stack(losses).mean(0)

    def _at(self, percent: float, view: View, loss: Callable[[TokenScores], Rows]) -> Rows:
        row = (view.saliency, view.explainable, percent)
        draws = (self._temperature, self._samples, self._generator)
        if self._gradient == "sampled":
            return sampled_loss(*row, loss, *draws)
        return loss(soft_top_k(*row, self._gradient, *draws))

    def _percents(self) -> tuple[float, ...]:
        if self._mode == "mean":
            return self._bins
        if self._mode == "cycle":
            self._turn += 1
            return (self._bins[(self._turn - 1) % len(self._bins)],)
        return (self._random.choice(self._bins),)


def probability_of(logits: Logits, classes: torch.Tensor) -> Rows:
    """``softmax(logits)`` at ``classes``."""
    return logits.softmax(-1).gather(1, classes[:, None])[:, 0]


def aopc(view: View, bins: tuple[float, ...], keep_top: bool) -> Rows:
    """Mean over ``bins`` of ``p(y_hat | x) - p(y_hat | reduced x)`` for every row.

    ``keep_top`` keeps only the top tokens (sufficiency), else they are removed
    (comprehensiveness). Ranks by the saliency; ties go to the earlier token.
    """
    predictions = view.predictions
    full = view.task.probability(view.logits, predictions)
    drops = []
    for percent in bins:
        top = top_k(view.saliency, view.explainable, percent)
        keep = (top if keep_top else ~top).to(full)
        drops.append(full - view.task.probability(view.rerun(keep), predictions))
    return torch.stack(drops).mean(0)
