"""Simulatability: an explanation is good if a student learns from it to predict like the model.

Xie et al. 2024 (IvRA), equations 7, 14, 15; Fernandes et al. 2022 (SMaT), equations 6-9.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from ivra.attention import masked_softmax
from ivra.losses.criterion import Criterion, Setup, Terms, View
from ivra.losses.student import Hypergradient, LookAhead, Plan, Student
from ivra.shapes import Rows, Saliency, TokenMask, TokenScores

EPSILON = 1e-6
HOLD = 10.0
"""Weight of the square by which a row's :func:`entropy_share` is off from where it is held."""
SHARPER = 0.2
"""How far :func:`log_spread` may be from where it is held until the pull is as strong as the
term's own."""


def _scores(saliency: Saliency, explainable: TokenMask) -> tuple[TokenScores, Tensor]:
    """``log r`` about its mean over a row's tokens with ``r > 0``, and its standard deviation
    ``(B, 1)`` there."""
    support = explainable & (saliency > 0)
    count = support.sum(-1, keepdim=True).clamp_min(1)
    scores = torch.where(support, saliency, 1.0).log()
    scores = (scores - scores.sum(-1, keepdim=True) / count) * support
    return scores, (scores.square().sum(-1, keepdim=True) / count).clamp_min(EPSILON).sqrt()


def log_spread(saliency: Saliency, explainable: TokenMask) -> Tensor:
    """How sharp the saliencies are: the mean over rows of the log of the standard deviation of
    ``log r`` over a row's tokens with ``r > 0``. 0.1 more is scores scaled by about 1.1."""
    return _scores(saliency, explainable)[1].log().mean()


def fixed_sharpness(saliency: Saliency, explainable: TokenMask) -> Saliency:
    """``saliency`` itself, with a gradient that leaves its sharpness alone.

    With ``s = log r`` and ``sigma`` the standard deviation of a row's scores, it is
    ``softmax(sigma0 * s / sigma)`` with ``sigma0 = sigma`` a constant: equal to ``r``, and constant
    where the scores of a row are multiplied by a common factor. Tokens with ``r = 0`` stay out.
    """
    scores, spread = _scores(saliency, explainable)
    return masked_softmax(scores * (spread.detach() / spread), explainable & (saliency > 0))


def hypergradient_surrogate(teacher: Saliency, explainable: TokenMask, ahead: LookAhead) -> Rows:
    r"""A loss whose gradient in the teacher's saliency is that of the scaffolded student's.

    The student steps ``theta' = theta - rate * grad(CE + beta D(r, r*_theta))``, ``D`` the
    divergence of ``ahead`` (KL by default); the teacher's saliency ``r`` reaches the held-out loss
    ``L(theta')`` through it alone, so ::

        dL/dr = -rate * beta * d/dr [ v . grad_theta D(r, r*_theta) ],  v = grad L(theta')
              = -rate * beta * d/dr [ sum_j dD(r, r*)/dr*_j * (J v)_j ]

    with ``J v = d r*(theta + t v) / dt`` the ``slope`` of ``ahead``. One value a row; its sign and
    size mean nothing, its gradient does.
    """
    with torch.enable_grad():
        own = ahead.saliency.detach().requires_grad_()
        divergence = ahead.divergence(teacher, own, explainable).sum()
        (pull,) = torch.autograd.grad(divergence, own, create_graph=True)
    return -ahead.rate * ahead.beta * (pull * ahead.slope).sum(-1)


def entropy_share(saliency: Saliency, explainable: TokenMask) -> Rows:
    """Entropy of a row's saliency as a share of the largest, ``log n`` for ``n`` explainable
    tokens: 0 is a single token, 1 all alike. 0 where ``n`` is 1."""
    entropy = -(saliency * torch.where(saliency > 0, saliency, 1.0).log()).sum(-1)
    return entropy / explainable.sum(-1).clamp_min(2).to(entropy).log()


class Simulatability(Criterion):
    """Trains the saliency until a student that is taught with it simulates the model better.

    Each step the student practises on its own rows (``inner_step``), learning by the loss of
    equation 7; the current batch is held out from it. The metric is simulation accuracy: the share
    of rows on which both predict the same. It follows the student's own progress, so it has no
    say in which iteration is kept. There are two ways to see what a saliency is worth to a student:

    * ``form="hypergradient"``, that of the papers: a further, *pilot* step on the study rows is
      tried; the held-out cross-entropy after it, in nats, differentiated through the step, is the
      term.
    * ``form="guided"``, ours: the term is the held-out loss of equation 7 itself, of the student
      guided by the saliency ``r`` (its attention multiplied by ``r / r*``, see
      :meth:`Student.guided`), in nats::

          CE(S(x; r), y_hat) + imitation * D(r, r*) + 10 (H(r) / log n - entropy)^2

      It has the form of the bound ``-log p(y) <= E_r[-log p(y | z)] + KL(r || p(z))`` with
      ``r`` a belief about which token ``z`` the student looks at: a saliency should help
      whoever follows it, and be one that can be followed. Its gradient in ``r`` is exact.

    One pilot step sees only one step far, and on its own prefers whatever makes that step long: a
    saliency that is sharp, or far from the student's. So by default the saliency gets no sharper
    and the guided part of the step keeps its length; only their direction is learnt. The gradient
    is then a projection of the hypergradient, not the derivative of the term
    (``derivative_options`` says when it is); without the pilot step the term does not depend on
    the saliency at all. Nor is it the derivative where the student shortens its gradient: the
    factor is taken as a constant.

    Args:
        student: who is taught.
        form: see above; the options after ``entropy`` are those of ``hypergradient``.
        practice: steps of the student's own before each step of the model's.
        head_start: share of a student's life that it practises alone before it is heard
            (``guided``).
        imitation: weight of ``D(r, r*)`` (``guided``).
        entropy: where :func:`entropy_share` is held, and begins (``guided``).
        pilot: differentiate at the student after the pilot step (else at the student as it is).
        scale_free: judge the step whatever the size of the student's logits.
        fixed_length: the part of the step that the saliency causes keeps its length.
        fixed_sharpness: the term does not change how sharp the saliency is, see
            :func:`fixed_sharpness`; it is held where ``sharpness`` says, by a pull as strong as
            the term's where :func:`log_spread` is off by :data:`SHARPER`.
        sharpness: the spread of ``log r`` over a row's tokens that is held, as a multiple of what
            it is at first.
        hypergradient: ``"central-difference"``, two more forward passes of the student, or
            ``"exact"``, double backward, which quantised weights do not have.
    """

    name = "sim"
    better = "higher"
    selects = False
    needs_student = True
    derivative = "approximate"
    derivative_options: ClassVar[Mapping[str, object]] = {
        "pilot": True,
        "scale_free": False,
        "fixed_length": False,
        "fixed_sharpness": False,
    }

    def __init__(
        self,
        student: Student,
        form: Literal["hypergradient", "guided"] = "hypergradient",
        practice: Annotated[int, Field(ge=1)] = 4,
        head_start: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        imitation: Annotated[float, Field(ge=0)] = 1.0,
        entropy: Annotated[float, Field(ge=0, le=1)] = 0.55,
        pilot: bool = True,
        scale_free: bool = True,
        fixed_length: bool = True,
        fixed_sharpness: bool = True,
        sharpness: Annotated[float, Field(gt=0)] = 1.0,
        hypergradient: Hypergradient = "central-difference",
    ) -> None:
        super().__init__()
        self.student = student
        self.form = form
        self.practice = practice
        self.head_start = head_start
        self.imitation = imitation
        self.entropy = entropy
        self.start_entropy = entropy if form == "guided" else None
        self.plan = Plan(pilot, scale_free, fixed_length, hypergradient)
        self.fixed_sharpness = fixed_sharpness
        self.sharpness = sharpness
        self._first_spread: float | None = None
        self._study: View | None = None

    @classmethod
    def build(cls, setup: Setup) -> Self:
        return cls(setup.new_student(), **setup.options)

    def get_extra_state(self) -> dict[str, Any]:
        """The students, and the sharpness that is held."""
        return {"student": self.student.state_dict(), "first_spread": self._first_spread}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with them."""
        self.student.load_state_dict(state["student"])
        self._first_spread = state["first_spread"]

    def inner_step(self, view: View) -> None:
        guided = self.form == "guided"
        with torch.set_grad_enabled(not guided and torch.is_grad_enabled()):
            for _ in range(self.practice):
                self._practise(view)
            while guided and self.student.practised < self.head_start:
                self._practise(view)

    def _practise(self, view: View) -> None:
        self._study = view.on(self.student.study_rows())
        self.student.practise(self._study)

    def forward(self, view: View) -> Terms:
        if not len(view.batch):  # no model runs on no rows
            return Terms(sim=view.saliency.sum(-1))
        return self._guided(view) if self.form == "guided" else self._ahead(view)

    def _guided(self, view: View) -> Terms:
        guided = self.student.guided(view)
        excess = entropy_share(view.saliency, view.explainable) - self.entropy
        return Terms(
            sim=guided.loss,
            imitation=self.imitation * guided.divergence,
            entropy=HOLD * excess.square(),
        )

    def _ahead(self, view: View) -> Terms:
        study = self._study or view.on(self.student.study_rows())
        self._study = None
        ahead = self.student.look_ahead(study, view, self.plan)
        teacher = study.saliency
        if self.fixed_sharpness:
            teacher = fixed_sharpness(teacher, study.explainable)
        surrogate = hypergradient_surrogate(teacher, study.explainable, ahead).mean()
        if self.fixed_sharpness:
            surrogate = surrogate + self._hold(study, surrogate)
        return Terms(sim=ahead.loss + surrogate - surrogate.detach())

    def _hold(self, study: View, surrogate: Tensor) -> Tensor:
        """What pulls the sharpness of a saliency to where it is held, on the scale of the
        surrogate's own gradient in ``log r``."""
        spread = log_spread(study.saliency, study.explainable)
        if self._first_spread is None:
            self._first_spread = spread.item()
        excess = spread.item() - self._first_spread - math.log(self.sharpness)
        if not excess or not spread.requires_grad:
            return torch.zeros_like(spread)
        pulls = [
            (
                study.saliency * torch.autograd.grad(term, study.saliency, retain_graph=True)[0]
            ).norm()
            for term in (surrogate, spread)
        ]
        return excess / SHARPER * (pulls[0] / pulls[1].clamp_min(1e-30)) * spread

    def metric(self, view: View) -> Rows:
        return self.student.agrees(view) if len(view.batch) else view.saliency.sum(-1)
