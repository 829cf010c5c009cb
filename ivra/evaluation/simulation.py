"""Simulation accuracy: how well students taught with an explanation predict the model.

Pruthi et al. 2022; Fernandes et al. 2022 (SMaT); Xie et al. 2024 (IvRA), equation 6.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch, Item
from ivra.evaluation.prediction import predict, token_scores
from ivra.explainers import BATCH_TOKENS, Explainer, to_simplex
from ivra.losses import RowDivergence, row_divergence
from ivra.shapes import Predictions
from ivra.training import Encoder, Loop, Objective, endless, linear_schedule

NewStudent = Callable[[int], tuple[Backbone, InterpretableAttention]]


class StudentPlan(NamedTuple):
    """How students are taught: rows they learn from, passes over them, learning rate of AdamW,
    weight of the divergence between their saliency and the explanation, rows a step, which
    divergence (see :func:`~ivra.losses.row_divergence`), the NORM of their saliency, and tokens
    a step in the place of rows."""

    rows: int
    epochs: float
    lr: float
    beta: float
    batch_size: int
    divergence: str = "kl"
    normaliser: str = "softmax"
    batch_tokens: int | None = None

    @property
    def apart(self) -> RowDivergence:
        """The divergence itself."""
        return row_divergence(self.divergence, self.normaliser)


class Simulation(NamedTuple):
    """Simulation accuracy over students, each in ``[0, 1]``: median, quartiles and all values,
    and ``correct``, the rows that every student got right as a string of 0 and 1."""

    median: float
    lower_quartile: float
    upper_quartile: float
    values: list[float]
    correct: list[str]

    @classmethod
    def of(cls, correct: Sequence[Sequence[bool]] | NDArray[np.bool_]) -> "Simulation":
        """Median and quartiles over students, from what each of them got right."""
        values = [int(sum(rows)) / len(rows) for rows in correct]
        lower, median, upper = np.percentile(values, [25, 50, 75]).tolist()
        rows = ["".join("1" if right else "0" for right in student) for student in correct]
        return cls(median, lower, upper, values, rows)

    def matrix(self) -> NDArray[np.bool_]:
        """``correct`` as ``(students, rows)``."""
        return np.array([[right == "1" for right in rows] for rows in self.correct])


def simulation_accuracy(
    teacher: Backbone,
    explainers: Sequence[Explainer],
    train: Sequence[Item],
    test: Sequence[Item],
    new_student: NewStudent,
    plan: StudentPlan,
    seeds: Sequence[int],
    progress: Callable[[str, int], None] = lambda name, seed: None,
    batch_tokens: int = BATCH_TOKENS,
    untaught: bool = True,
) -> dict[str, Simulation]:
    """Teach fresh students with each explainer, and some with none, and test them without.

    Every student learns the teacher's predictions on ``plan.rows`` rows of ``train``, drawn by
    its seed, by ``CE(S(x), y_hat) + beta D(r, r*)``, ``D`` the plan's divergence; the control
    ``"none"`` (left out unless ``untaught``) has no second term, nor have rows whose explanation
    is all 0 (the control ``"true"`` where nothing is marked).
    On ``test`` no explanation is shown; the figure is the share of rows on which student and
    teacher predict the same. The same seed gives the same start, rows and order to the students
    of all explainers, so that their values are pairs. ``batch_tokens`` bounds what an explainer
    is given at once and changes no figure.
    """
    task = teacher.task
    expected = task.predict(predict(teacher, test))
    correct: dict[str, list[list[bool]]] = {}
    for seed in seeds:
        rows = random.Random(seed).sample(list(train), min(plan.rows, len(train)))
        for explainer in (None, *explainers) if untaught else explainers:
            name = "none" if explainer is None else explainer.name
            progress(name, seed)
            lessons = _lessons(teacher, explainer, rows, batch_tokens)
            student = _taught(lessons, rows, new_student, plan, seed)
            agreement = task.same(task.predict(predict(student, test)), expected)
            correct.setdefault(name, []).append(agreement.tolist())
    return {name: Simulation.of(found) for name, found in correct.items()}


class _Lessons(NamedTuple):
    """The teacher's predictions of rows and its saliencies, ``None`` where nothing is explained."""

    labels: Predictions
    guides: list[Tensor] | None


@torch.no_grad()
def _lessons(
    teacher: Backbone, explainer: Explainer | None, rows: Sequence[Item], batch_tokens: int
) -> _Lessons:
    labels = teacher.task.predict(predict(teacher, rows)).to(teacher.device)
    if explainer is None:
        return _Lessons(labels, None)
    guides = token_scores(explainer, teacher, rows, batch_tokens)
    if not explainer.is_saliency:
        masks = [torch.tensor([item.explainable]) for item in rows]
        pairs = zip(guides, masks, strict=True)
        guides = [to_simplex(scores[None], mask)[0] for scores, mask in pairs]
    return _Lessons(labels, [guide.to(teacher.device) for guide in guides])


def _taught(
    lessons: _Lessons, rows: Sequence[Item], new_student: NewStudent, plan: StudentPlan, seed: int
) -> Backbone:
    student, module = new_student(seed)
    task = student.task
    encoder = Encoder(student, 0, plan.batch_size, plan.batch_tokens)
    labels, guides = lessons
    index = {id(item): place for place, item in enumerate(rows)}

    def objective(batch: Batch) -> Objective:
        places = [index[id(item)] for item in batch.items]
        reader = None if guides is None else module
        encoding = student.encode(batch, reader)
        loss = task.loss(encoding.logits, task.placed(labels[places], batch))
        if guides is not None:
            own = module(encoding.readings, batch.explainable, encoding.classes)
            guide = torch.zeros_like(own)
            guide[batch.attention_mask] = torch.cat([guides[place] for place in places])
            given = guide.sum(-1) > 0
            divergence = plan.apart(guide, own, batch.explainable)
            loss = loss + plan.beta * torch.where(given, divergence, 0.0).mean()
        return Objective(loss, {})

    steps = math.ceil(plan.epochs * encoder.batches_in(rows))
    parameters = [*student.learnable, *([] if guides is None else module.parameters())]
    loop = Loop("student", [(parameters, plan.lr)], objective, steps, linear_schedule(steps))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student.train()
        if loop.run(endless(lambda n: encoder.batches(rows, seed * 1000 + n))).interrupted:
            raise KeyboardInterrupt  # a student that was cut short is no figure
    return student.eval()
