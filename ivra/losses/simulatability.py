"""Simulatability: an explanation is good if a student learns from it to predict like the model.

Xie et al. 2024 (IvRA), equations 7, 14, 15; Fernandes et al. 2022 (SMaT), equations 6-9.
"""

from typing import Self

from ivra.losses.criterion import Criterion, Setup, Terms, View
from ivra.losses.divergence import mixed
from ivra.losses.student import LookAhead, Student
from ivra.shapes import Rows, Saliency, TokenMask


def hypergradient_surrogate(teacher: Saliency, explainable: TokenMask, ahead: LookAhead) -> Rows:
    r"""A loss whose gradient in the teacher's saliency is that of the scaffolded student's.

    The student steps ``theta' = theta - rate * grad(CE + beta KL(r, r*_theta))``; the teacher's
    saliency ``r`` reaches the held-out loss ``L(theta')`` through the divergence alone, so ::

        dL/dr = -rate * beta * d/dr [ v . grad_theta KL(r, r*_theta) ],  v = grad L(theta')

    and the derivative along ``v`` is a central difference of the student's saliency::

        v . grad KL(r, r*) ~ |v| / (2 step) * sum_j r_j (log r*-_j - log r*+_j)

    (``r*+-`` with ``theta`` moved by ``+-step v / |v|``; the entropy of ``r`` cancels). One value
    a row; its sign and size mean nothing, its gradient does.
    """
    factor = ahead.rate * ahead.beta * ahead.norm / (2 * ahead.step)
    plus = mixed(ahead.forward, explainable).clamp_min(1e-30).log()
    minus = mixed(ahead.backward, explainable).clamp_min(1e-30).log()
    return factor * (mixed(teacher, explainable) * (plus - minus)).sum(-1)


class Simulatability(Criterion):
    """Trains the saliency until a student that is taught with it simulates the model better.

    Each step the student takes one gradient step on its own rows (``inner_step``), then a
    further, *pilot* step on them is tried; its held-out cross-entropy on the current batch,
    differentiated through the pilot step, is the loss. The term's value is that cross-entropy in
    nats. The metric is simulation accuracy: the share of rows on which both predict the same. It
    follows the student's own progress, so it has no say in which iteration is kept.
    """

    name = "sim"
    better = "higher"
    selects = False
    derivative = "approximate"

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self._study: View | None = None

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.new_student())

    def inner_step(self, view: View) -> None:
        self._study = view.on(self.student.study_rows())
        self.student.practise(self._study)

    def forward(self, view: View) -> Terms:
        if not len(view.batch):  # no model runs on no rows
            return Terms(sim=view.saliency.sum(-1))
        study = self._study or view.on(self.student.study_rows())
        ahead = self.student.look_ahead(study, view)
        surrogate = hypergradient_surrogate(study.saliency, study.explainable, ahead).mean()
        self._study = None
        return Terms(sim=ahead.loss + surrogate - surrogate.detach())

    def metric(self, view: View) -> Rows:
        return self.student.agrees(view) if len(view.batch) else view.saliency.sum(-1)
