"""The student of the simulatability criterion, and its pilot step.

Fernandes et al. 2022 (SMaT), equations 6-9; Xie et al. 2024 (IvRA), equations 14-15.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.losses import LookAhead, Plan, View, kl_divergence
from ivra.shapes import Logits, Rows, Saliency
from ivra.training.loop import Loop, Objective, Validation

DIFFERENCE_STEP = 0.01
CLIP = 1.0
"""Longest gradient of the student's SGD: a longer one makes it forget what it learnt."""
EXAM_STEPS = 50
"""Steps of the warm-up between two looks at what the student knows."""


class ScaffoldedStudent:
    """A classifier with an attention module of its own, trained by SGD on the teacher's word.

    Its loss on a study batch is ``CE(S(x), y_hat) + beta KL(r, r*)`` (IvRA eq. 7), mean over
    rows, with ``r`` the teacher's saliency, ``r*`` its own and all its weights and coefficients
    moving; a gradient longer than :data:`CLIP` is shortened to it. It runs without dropout, so
    that the passes of a difference see one function.

    Args:
        backbone: the student's model; its weights are trained here.
        module: the student's attention module.
        study: an endless stream of batches, the rows it may learn from.
        rate: learning rate of its SGD.
        beta: weight of the divergence term.
    """

    def __init__(
        self,
        backbone: Backbone,
        module: InterpretableAttention,
        study: Iterator[Batch],
        rate: float,
        beta: float,
    ) -> None:
        self.backbone = backbone.eval()
        self.module = module
        self.rate = rate
        self.beta = beta
        self._study = study
        self._parameters = [*backbone.parameters(), *module.parameters()]
        for parameter in self._parameters:
            parameter.requires_grad_(True)

    def study_rows(self) -> Batch:
        """The next batch of rows the student may learn from."""
        return next(self._study)

    def practise(self, study: View) -> None:
        """One SGD step on ``study``."""
        self._move(*self._step(study))

    def warm_up(
        self, view: Callable[[Batch], View], known: Sequence[Batch], steps: int, rate: float
    ) -> bool:
        """Learn the study rows by AdamW until the student knows something, before scaffolding.

        Nothing can be told from how a model steps that predicts by chance: what it reads in a
        token is arbitrary then, and the first improvement is often to look away. So it learns
        until it agrees with the teacher on half of those ``known`` rows that always answering
        the most frequent class gets wrong, or for ``steps`` steps. Whether it got that far.
        """
        with torch.no_grad():
            exam = [view(batch) for batch in known]
        share = torch.cat([seen.predictions for seen in exam]).bincount().max().item()
        rows = sum(len(seen.batch) for seen in exam)

        def objective(batch: Batch) -> Objective:
            with torch.no_grad():
                study = view(batch)
            return Objective(self._loss(study)[0], {})

        def validate() -> Validation:
            right = sum(self.agrees(seen).sum().item() for seen in exam)
            return Validation(right / rows, {"agreement": right / rows})

        loop = Loop(
            stage="warm-up",
            groups=[(self._parameters, rate)],
            objective=objective,
            steps=steps,
            validate=validate,
            validations=math.ceil(steps / EXAM_STEPS),
            enough=(1 + share / rows) / 2,
        )
        outcome = loop.run(self._study)
        if outcome.interrupted:
            raise KeyboardInterrupt
        assert outcome.best is not None
        assert outcome.best.score is not None
        return outcome.best.score >= loop.enough

    def look_ahead(self, study: View, heldout: View, plan: Plan) -> LookAhead:
        """The pilot step on ``study``, taken back again, and the direction it is judged by.

        The held-out loss is the cross-entropy with the teacher's predictions. Afterwards the
        student is exactly as before.
        """
        step, rate = self._step(study)
        with self._moved(step, rate if plan.pilot else 0.0), torch.enable_grad():
            logits = self.backbone.encode(heldout.batch).logits
            loss = functional.cross_entropy(logits, heldout.predictions, reduction="none")
            direction = self._gradient(loss.mean())
        if plan.fixed_length:
            direction = self._across(direction, study)
        saliency, slope = (
            self._exact_slope(study.batch, direction)
            if plan.method == "exact"
            else self._difference_slope(study.batch, direction)
        )
        return LookAhead(saliency, slope, -rate, self.beta, loss.detach())

    @torch.no_grad()
    def agrees(self, view: View) -> Rows:
        """1 where the student predicts what the teacher predicts, else 0; it sees no saliency."""
        predictions = self.backbone.encode(view.batch).predictions
        return (predictions == view.predictions).to(view.saliency)

    def _read(self, batch: Batch) -> tuple[Logits, Saliency]:
        encoding = self.backbone.encode(batch, self.module)
        saliency = self.module(encoding.readings, batch.explainable, encoding.predictions)
        return encoding.logits, saliency

    def _loss(self, study: View) -> tuple[Tensor, Tensor]:
        """The student's loss on ``study``, and its divergence alone."""
        logits, saliency = self._read(study.batch)
        task = functional.cross_entropy(logits, study.predictions)
        guide = self._guide(study, saliency)
        return task + self.beta * guide, guide

    def _guide(self, study: View, saliency: Saliency) -> Tensor:
        return kl_divergence(study.saliency.detach(), saliency, study.explainable).mean()

    def _step(self, study: View) -> tuple[list[Tensor], float]:
        """The gradient on ``study`` and by how much of it the parameters move: minus the rate,
        less where the gradient is longer than :data:`CLIP`."""
        with torch.enable_grad():
            gradient = self._gradient(self._loss(study)[0])
        return gradient, -self.rate * min(1.0, CLIP / max(_norm(gradient), 1e-30))

    def _across(self, direction: list[Tensor], study: View) -> list[Tensor]:
        """``direction`` without its part along the gradient of the divergence on ``study``.

        If the step along that gradient ``g`` keeps its length, only ``g / |g|`` depends on the
        teacher, and its derivative is that of ``g`` across ``g``.
        """
        with torch.enable_grad():
            guide = self._gradient(self._guide(study, self._read(study.batch)[1]))
        along = _dot(direction, guide) / max(_dot(guide, guide), 1e-30)
        return [d - along * g for d, g in zip(direction, guide, strict=True)]

    @torch.no_grad()
    def _difference_slope(self, batch: Batch, direction: list[Tensor]) -> tuple[Saliency, Tensor]:
        norm = max(_norm(direction), 1e-30)
        ends = []
        for sign in (1, -1):
            with self._moved(direction, sign * DIFFERENCE_STEP / norm):
                ends.append(self._read(batch)[1])
        forward, backward = ends
        return (forward + backward) / 2, (forward - backward) * norm / (2 * DIFFERENCE_STEP)

    def _exact_slope(self, batch: Batch, direction: list[Tensor]) -> tuple[Saliency, Tensor]:
        """``J v`` as the derivative of ``J' w`` in ``w``: double backward, by plain attention."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            saliency = self._read(batch)[1]
            weights = torch.zeros_like(saliency, requires_grad=True)
            pulled = torch.autograd.grad(
                saliency, self._parameters, weights, create_graph=True, allow_unused=True
            )
            pairs = zip(pulled, direction, strict=True)
            total = torch.stack([(p * d).sum() for p, d in pairs if p is not None]).sum()
            (slope,) = torch.autograd.grad(total, weights)
        return saliency.detach(), slope

    def _gradient(self, loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        pairs = zip(found, self._parameters, strict=True)
        return [torch.zeros_like(p) if g is None else g for g, p in pairs]

    @torch.no_grad()
    def _move(self, direction: list[Tensor], length: float) -> None:
        for parameter, slope in zip(self._parameters, direction, strict=True):
            parameter.add_(slope, alpha=length)

    @contextmanager
    def _moved(self, direction: list[Tensor], length: float) -> Iterator[None]:
        """The parameters moved by ``length * direction``; restored to the bit afterwards."""
        saved = [parameter.detach().clone() for parameter in self._parameters]
        self._move(direction, length)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self._parameters, saved, strict=True):
                    parameter.copy_(value)


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum())


def _norm(direction: list[Tensor]) -> float:
    return math.sqrt(_dot(direction, direction))
