"""The student of the simulatability criterion, its pilot step, and how it reads if guided.

Fernandes et al. 2022 (SMaT), equations 6-9; Xie et al. 2024 (IvRA), equations 14-15.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.losses import Guided, LookAhead, Plan, RowDivergence, View, kl_divergence
from ivra.shapes import Outputs, Rows, Saliency
from ivra.training.state import State, copy_into, load_optimizer_state, optimizer_state
from ivra.training.stream import Endless

DIFFERENCE_STEP = 0.01
COARSE_STEP = 0.2
"""The same where a pass rounds (:attr:`Backbone.rounds`), which drowns a shorter step."""
CLIP = 1.0
"""Longest gradient of a step of the student's."""
LEAST_SALIENCY = 1e-4
"""Added to both saliencies whose ratio guides a student's attention."""

Fresh = Callable[[int], tuple[Backbone, InterpretableAttention]]
"""The student number 0, 1, 2, ...: a model that has not seen the task, and its module."""
Study = Callable[[int], Endless[Batch]]
"""The batches of rows that student number 0, 1, 2, ... may learn from, the same or its own."""
Schedule = Callable[[int], float]
"""The learning rate of a student's step 0, 1, 2, ... of its life, as a share of the highest."""


class ScaffoldedStudent:
    """A classifier with an attention module of its own, trained on the teacher's word.

    Its loss on a study batch is ``CE(S(x), y_hat) + beta D(r, r*)`` (IvRA eq. 7), mean over
    rows, with ``r`` the teacher's saliency, ``r*`` its own and all that it can learn moving
    (:attr:`Backbone.learnable` and its coefficients): by AdamW, as those move that simulation
    accuracy is measured with. After ``life`` steps a fresh student takes its place, so that the
    teacher learns to teach beginners and advanced ones. It runs without dropout, so that the passes
    of a difference see one function.

    Args:
        fresh: makes the students.
        study: the rows it may learn from, in batches.
        rate: its learning rate, of its own steps and of the pilot step (plain SGD); the highest
            where there is a ``schedule``.
        beta: weight of the divergence term.
        life: steps of practice until the next student begins.
        divergence: ``D``, of two saliencies.
        age: steps of practice that the first student's life is shorter by.
        schedule: of the rate over a life, constant by default.
    """

    def __init__(
        self,
        fresh: Fresh,
        study: Study,
        rate: float,
        beta: float,
        life: int,
        divergence: RowDivergence = kl_divergence,
        age: int = 0,
        schedule: Schedule = lambda step: 1.0,
    ) -> None:
        self.beta = beta
        self.life = life
        self.divergence = divergence
        self._highest_rate, self._schedule = rate, schedule
        self._fresh, self._studies = fresh, study
        self._number = 0
        self._head_start = age
        self._begin()
        self._age = age

    @property
    def practised(self) -> float:
        """The share of its life that it has practised; what the first one's is shorter by is not
        counted in."""
        skipped = self._head_start if self._number == 1 else 0
        return (self._age - skipped) / self.life

    @property
    def rate(self) -> float:
        """The learning rate of its next step, or of its last where its time is up."""
        return self._highest_rate * self._schedule(min(self._age, self.life - 1))

    def _begin(self) -> None:
        backbone, self.module = self._fresh(self._number)
        self._study = self._studies(self._number)
        self.backbone = backbone.eval()
        self._number += 1
        self._age = 0
        self._parameters = [*self.backbone.learnable, *self.module.parameters()]
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=self._highest_rate, weight_decay=0.0
        )

    def study_rows(self) -> Batch:
        """The next batch of rows the student may learn from."""
        return next(self._study)

    def practise(self, study: View) -> None:
        """One step of AdamW on ``study``; by a fresh student, if the old one's time is up."""
        if self._age >= self.life:
            self._begin()
        gradient = self._study_gradient(study)
        share = min(1.0, CLIP / max(_norm(gradient), 1e-30))
        for parameter, slope in zip(self._parameters, gradient, strict=True):
            parameter.grad = slope * share
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._age += 1

    def look_ahead(self, study: View, heldout: View, plan: Plan) -> LookAhead:
        """The pilot step on ``study``, taken back again, and the direction it is judged by.

        The held-out loss is the cross-entropy with the teacher's predictions, the direction its
        gradient, or with ``scale_free`` that of the cross-entropy of logits brought to standard
        deviation 1. A beginner's logits are noise, whose cross-entropy falls first by making them
        smaller: by looking away from all that matters. Afterwards the student is exactly as
        before.
        """
        gradient = self._study_gradient(study)
        rate = self.rate * min(1.0, CLIP / max(_norm(gradient), 1e-30))
        with self._moved(gradient, -rate if plan.pilot else 0.0), torch.enable_grad():
            logits, task = self.backbone.encode(heldout.batch).logits, heldout.task
            loss = task.losses(logits, heldout.predictions)
            judged = task.loss(task.standard(logits), heldout.predictions)
            direction = self._gradient(judged if plan.scale_free else loss.mean())
        if plan.fixed_length:
            direction = self._across(direction, study)
        exact = plan.method == "exact" and self._has_second_derivatives()
        slope_of = self._exact_slope if exact else self._difference_slope
        saliency, slope = slope_of(study.batch, direction)
        return LookAhead(saliency, slope, rate, self.beta, loss.detach(), self.divergence)

    def guided(self, view: View) -> Guided:
        """The rows of ``view`` if the student looked where the teacher's saliency ``r`` says.

        Of every layer, head and query, the attention to token ``j`` is multiplied by
        ``r_j / r*_j`` and brought back to sum 1, with ``r*`` the student's own saliency of the
        rows: where it has learnt to imitate ``r``, it reads them as ever, and where a little more
        ``r_j`` would help it, the loss falls.
        """
        with torch.no_grad():
            own = self._read(view.batch)[1]
        keep = (view.saliency + LEAST_SALIENCY) / (own + LEAST_SALIENCY)
        with self._held():
            logits = self.backbone.rerun(view.batch, keep)
        loss = view.task.losses(logits, view.predictions)
        return Guided(loss, self.divergence(view.saliency, own, view.explainable))

    def state_dict(self) -> State:
        """Weights, optimiser, age and number of the student, and its place among the rows."""
        return {
            "number": self._number,
            "age": self._age,
            "parameters": [p.detach() for p in self._parameters],
            "optimizer": optimizer_state(self._optimizer),
            "study": self._study.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from there; a student of another number is made anew first."""
        if self._number != state["number"]:
            self._number = state["number"] - 1
            self._begin()
        self._age = state["age"]
        copy_into(self._parameters, state["parameters"])
        load_optimizer_state(self._optimizer, state["optimizer"])
        self._study.load_state_dict(state["study"])

    def _has_second_derivatives(self) -> bool:
        quantised = bool(getattr(self.backbone.model, "is_quantized", False))
        if quantised:
            warnings.warn(
                "quantised weights have no second derivatives: sim.hypergradient is "
                "central-difference instead of exact",
                stacklevel=3,
            )
        return not quantised

    @torch.no_grad()
    def agrees(self, view: View) -> Rows:
        """1 where the student predicts what the teacher predicts, else 0; it sees no saliency."""
        predictions = self.backbone.encode(view.batch).predictions
        return view.task.same(predictions, view.predictions).to(view.saliency)

    def _read(self, batch: Batch) -> tuple[Outputs, Saliency]:
        encoding = self.backbone.encode(batch, self.module)
        saliency = self.module(encoding.readings, batch.explainable, encoding.classes)
        return encoding.logits, saliency

    def _study_gradient(self, study: View) -> list[Tensor]:
        with torch.enable_grad():
            logits, saliency = self._read(study.batch)
            task = study.task.loss(logits, study.predictions)
            return self._gradient(task + self.beta * self._guide(study, saliency))

    def _guide(self, study: View, saliency: Saliency) -> Tensor:
        return self.divergence(study.saliency.detach(), saliency, study.explainable).mean()

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
        step = COARSE_STEP if self.backbone.rounds else DIFFERENCE_STEP
        ends = []
        for sign in (1, -1):
            with self._moved(direction, sign * step / norm):
                ends.append(self._read(batch)[1])
        forward, backward = ends
        return (forward + backward) / 2, (forward - backward) * norm / (2 * step)

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
    def _held(self) -> Iterator[None]:
        """Parameters that no gradient reaches in passes that begin here."""
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(True)

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


class StudentsInTurn:
    """A class of students, each taught for one step of the teacher's after the other.

    What a student asks for depends on how far it has come; of students whose ages are spread evenly
    over a life the teacher hears all of it, and does not swing from one end to the other.
    """

    def __init__(self, students: Sequence[ScaffoldedStudent]) -> None:
        self.students = list(students)
        self._turn = 0

    def study_rows(self) -> Batch:
        """The next batch of rows for the student whose turn it is."""
        return self.students[self._turn].study_rows()

    def practise(self, study: View) -> None:
        """One step of that student's."""
        self.students[self._turn].practise(study)

    def look_ahead(self, study: View, heldout: View, plan: Plan) -> LookAhead:
        """The pilot step of that student's; then it is the next one's turn."""
        found = self.students[self._turn].look_ahead(study, heldout, plan)
        self._turn = (self._turn + 1) % len(self.students)
        return found

    @property
    def practised(self) -> float:
        """The share of its life that the student whose turn it is has practised."""
        return self.students[self._turn].practised

    def guided(self, view: View) -> Guided:
        """How that student reads ``view`` if it is guided; then it is the next one's turn."""
        found = self.students[self._turn].guided(view)
        self._turn = (self._turn + 1) % len(self.students)
        return found

    def agrees(self, view: View) -> Rows:
        """The share of the students that predict what the teacher predicts."""
        return torch.stack([student.agrees(view) for student in self.students]).mean(0)

    def state_dict(self) -> State:
        """That of all of them, and whose turn it is."""
        return {"turn": self._turn, "students": [each.state_dict() for each in self.students]}

    def load_state_dict(self, state: State) -> None:
        """Go on from there."""
        self._turn = state["turn"]
        for student, own in zip(self.students, state["students"], strict=True):
            student.load_state_dict(own)


def _dot(left: list[Tensor], right: list[Tensor]) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum())


def _norm(direction: list[Tensor]) -> float:
    return math.sqrt(_dot(direction, direction))
