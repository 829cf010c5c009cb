"""What the simulatability criterion needs of a student, whoever builds it."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from ivra.losses.divergence import RowDivergence, kl_divergence
from ivra.shapes import Rows, Saliency, TokenScores

if TYPE_CHECKING:
    from ivra.data import Batch
    from ivra.losses.criterion import View


Hypergradient = Literal["central-difference", "exact"]
"""How the derivative of the student's saliency is had: from two more forward passes, or by
double backward (through plain attention, float weights only)."""


class Plan(NamedTuple):
    """How a student looks ahead.

    ``pilot``: whether the held-out loss is taken after a step that is tried and taken back, or
    at the student as it is. ``scale_free``: whether the direction it is judged by ignores the size
    of its logits. ``fixed_length``: whether the part of that step which the teacher's saliency
    causes keeps its length whatever the saliency, so that it can be turned but not stretched.
    ``method``: see :data:`Hypergradient`.
    """

    pilot: bool = True
    scale_free: bool = True
    fixed_length: bool = True
    method: Hypergradient = "central-difference"


class LookAhead(NamedTuple):
    """A pilot step seen from the teacher's side.

    ``saliency`` is the student's own ``r*`` of the study rows and ``slope`` its derivative along
    the direction ``v`` that the held-out loss is judged by, ``d r*(theta + t v) / dt`` at
    ``t = 0`` (both ``(B, L)``); ``rate`` is the student's learning rate and ``beta`` the weight of
    its divergence term. ``loss`` is the held-out loss, one value a row, and ``divergence`` what
    the student is pulled to the teacher's saliency by.
    """

    saliency: Saliency
    slope: TokenScores
    rate: float
    beta: float
    loss: Rows
    divergence: RowDivergence = kl_divergence


class Guided(NamedTuple):
    """What a student makes of rows if it looks where the teacher's saliency says; a value a row.

    ``loss`` is its cross-entropy with the teacher's predictions then, in nats, and ``divergence``
    how far the saliency ``r`` is from its own ``r*``. A gradient flows to ``r`` alone.
    """

    loss: Rows
    divergence: Rows


@runtime_checkable
class Student(Protocol):
    """A model that learns to predict what the teacher predicts, helped by its saliency."""

    @property
    def practised(self) -> float:
        """The share of its life that it has practised, in ``[0, 1]``."""
        ...

    def study_rows(self) -> "Batch":
        """The next batch of the rows the student may learn from."""
        ...

    def practise(self, study: "View") -> None:
        """One step of its training on the teacher's predictions and saliency of ``study``."""
        ...

    def look_ahead(self, study: "View", heldout: "View", plan: Plan) -> LookAhead:
        """A further step that is taken back again, and what it would have been worth."""
        ...

    def guided(self, view: "View") -> Guided:
        """``view`` read with every token's attention multiplied by ``r / r*``."""
        ...

    def agrees(self, view: "View") -> Rows:
        """1 where student and teacher predict the same, else 0."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that its next steps depend on, as a criterion's extra state."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...
