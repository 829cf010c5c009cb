"""What the simulatability criterion needs of a student, whoever builds it."""

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from ivra.shapes import Rows, Saliency

if TYPE_CHECKING:
    from ivra.data import Batch
    from ivra.losses.criterion import View


class LookAhead(NamedTuple):
    """A pilot step seen from the teacher's side.

    ``forward`` and ``backward`` are the student's saliency of the study rows with its
    parameters moved by ``+-step`` along the unit gradient of its held-out loss; ``norm`` is that
    gradient's norm, ``rate`` the student's learning rate and ``beta`` the weight of its
    divergence term. ``loss`` is the held-out loss after the pilot step, one value a row.
    """

    forward: Saliency
    backward: Saliency
    step: float
    norm: float
    rate: float
    beta: float
    loss: Rows


@runtime_checkable
class Student(Protocol):
    """A model that learns to predict what the teacher predicts, helped by its saliency."""

    def study_rows(self) -> "Batch":
        """The next batch of the rows the student may learn from."""
        ...

    def practise(self, study: "View") -> None:
        """One gradient step on the teacher's predictions and saliency of ``study``."""
        ...

    def look_ahead(self, study: "View", heldout: "View") -> LookAhead:
        """A further step that is taken back again, and what it would have been worth."""
        ...

    def agrees(self, view: "View") -> Rows:
        """1 where student and teacher predict the same class, else 0."""
        ...
