"""The plugin point: what a criterion may read, must return, and how it is checked."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from ivra.data import Batch
from ivra.errors import IvraError, NotFiniteError
from ivra.losses.options import Option, accepts, constructor_options
from ivra.losses.student import Student
from ivra.shapes import (
    Hidden,
    Outputs,
    Predictions,
    RowMask,
    Rows,
    Saliency,
    TokenMask,
    TokenScores,
)
from ivra.tasks import CLASSIFICATION, Task

AOPC_BINS = (1.0, 5.0, 10.0, 20.0, 50.0)
"""Percent of explainable tokens that comprehensiveness and sufficiency look at (ERASER)."""

Derivative = Literal["exact", "cut", "approximate"]
"""What a criterion's gradient in the saliency is; the contract (``ivra plugins --check``) holds
it to that.

* ``"exact"``: the derivative of its terms.
* ``"cut"``: the saliency is cut into the 0/1 ``keep`` of a rerun, whose own derivative is 0; from
  the terms to ``keep`` the gradient is the derivative, from ``keep`` to the saliency it is that
  of a relaxation.
* ``"approximate"``: that of the batch's mean term up to a small error, as of a difference
  quotient; only its direction is held to it.
"""


class Terms(dict[str, Tensor]):
    """Named, unreduced losses of one criterion: ``Terms(brevity=rows)`` with ``rows (B,)``.

    Their sum is what is minimised (mean over rows, times the criterion's weight).
    """

    def total(self) -> Rows:
        """The sum of all terms, ``(B,)``."""
        return torch.stack(list(self.values())).sum(0)


def alone(rows: Tensor) -> tuple[Tensor, int]:
    """The ``gather`` of a process that trains by itself."""
    return rows, 0


@dataclass(frozen=True)
class View:
    """Everything a criterion may read of one batch; the model itself is out of reach.

    ``saliency`` carries the gradient to the attention module; ``logits`` and ``hidden`` carry
    one to the backbone where that is trained. ``hidden`` (mean over layers) is there only for
    criteria that set ``needs_hidden``. ``rerun(keep)`` gives the logits of the same rows with
    each token kept in proportion ``keep (B, L)``; it is differentiable in ``keep``.
    ``on(batch)`` is the same view of other rows. ``task`` knows how ``logits`` and
    ``predictions`` are shaped, what is predicted and how probable it is. ``gather(rows)`` puts
    ``rows (B, L, ...)`` of all processes that train together one under the other, shorter ones
    padded with 0 behind, and says where the own ones begin; to these alone a gradient flows.
    """

    batch: Batch
    logits: Outputs
    saliency: Saliency
    hidden: Hidden | None
    rerun: Callable[[TokenScores], Outputs]
    on: Callable[[Batch], "View"]
    task: Task = CLASSIFICATION
    gather: Callable[[Tensor], tuple[Tensor, int]] = alone

    @property
    def predictions(self) -> Predictions:
        """``y_hat``, the model's own prediction of every row."""
        return self.task.predict(self.logits)

    @property
    def explainable(self) -> TokenMask:
        """True where a token may receive saliency."""
        return self.batch.explainable

    @property
    def labels(self) -> Predictions:
        """What should be predicted; -100 where nobody knows."""
        return self.task.gold(self.batch)

    @property
    def rationale(self) -> TokenMask:
        """Tokens that a human marked; false in rows nobody annotated."""
        return self.batch.rationale

    @property
    def annotated(self) -> RowMask:
        """Rows that a human annotated (with or without a mark)."""
        return self.batch.annotated


@dataclass(frozen=True)
class Setup:
    """What a criterion may ask for when it is built.

    ``seed`` for its own random choices; ``bins`` the percentages of a run and ``gradient`` how
    its cuts are differentiated; ``new_student()`` a student model to scaffold (its cost arises
    only if it is called); ``normaliser`` the name of the saliency's own; ``options`` what the
    user set of the criterion's :meth:`Criterion.options`, checked.
    """

    seed: int
    bins: tuple[float, ...]
    gradient: str
    new_student: Callable[[], Student]
    normaliser: str = "softmax"
    options: Mapping[str, Any] = field(default_factory=dict)


class Criterion(nn.Module, ABC):
    """What an explanation is trained to be good at.

    Subclass, set ``name`` and implement ``forward``::

        class Brevity(Criterion):
            name = "brevity"

            def forward(self, view: View) -> Terms:
                r = view.saliency
                return Terms(brevity=-(r * r.clamp_min(1e-7).log()).sum(-1))

    and register the class under the entry-point group ``ivra.criteria``. Scalar parameters of
    its constructor are its options. A criterion may own parameters and step them itself in
    ``inner_step``; it may report a metric of its own, by which the best iteration is kept.

    A run that is resumed gives it back its ``state_dict``. What later values depend on besides
    parameters and buffers (random number generators, counters, optimisers) belongs into PyTorch's
    own ``get_extra_state`` and ``set_extra_state``, as nested dicts with text keys and lists of
    tensors, numbers, text, booleans and ``None``; a tuple comes back as a list.
    """

    name: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"]] = "lower"
    """Whether a higher or a lower ``metric`` is better."""
    needs_hidden: ClassVar[bool] = False
    """Whether ``view.hidden`` is read."""
    pairwise: ClassVar[bool] = False
    """Whether the terms of a row depend on the other rows of its batch; ``batching: by-length`` is
    then for stage 1 alone (``batch_tokens`` still packs rows of like length)."""
    derivative: ClassVar[Derivative] = "exact"
    """What the gradient in the saliency is, see :data:`Derivative`."""
    derivative_options: ClassVar[Mapping[str, object]] = {}
    """Options under which that holds, where under others the gradient is something else on
    purpose."""
    needs_rationale: ClassVar[bool] = False
    """Whether training rows with a rationale are needed."""
    needs_student: ClassVar[bool] = False
    """Whether ``setup.new_student`` is called."""
    needs_classes: ClassVar[Mapping[str, object]] = {}
    """Options under which predictions must be of a few classes, the same in every row."""

    selects: ClassVar[bool] = True
    """Whether ``metric`` may decide which iteration is kept: false where values at different
    steps cannot be compared. If no criterion of a run selects, the last iteration is kept."""
    start_entropy: float | None = None
    """Share of the largest entropy that the saliency is to begin at, by the module's temperature;
    of several criteria the first that says one has its way."""

    @classmethod
    def build(cls, setup: Setup) -> Self:
        """Make one for a run.

        The constructor's parameters that are called like a field of ``setup`` get that field's
        value, its options what the user set. A method that overrides this one must hand
        ``setup.options`` on.
        """
        run = {f.name: getattr(setup, f.name) for f in fields(Setup) if accepts(cls, f.name)}
        return cls(**run, **setup.options)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """What a user may set, by name: the constructor's scalar parameters with a default.

        Those called like a field of :class:`Setup` are the run's, not the user's.
        """
        return constructor_options(cls, frozenset(f.name for f in fields(Setup)))

    @abstractmethod
    def forward(self, view: View) -> Terms:
        """Named losses of every row, ``(B,)`` each, lower is better."""

    def inner_step(self, view: View) -> None:
        """Update parameters of the criterion's own, before the shared backward pass."""
        return None

    def metric(self, view: View) -> Rows:
        """What validation reports for every row; called without gradients.

        NaN where it is undefined: such rows are left out of the mean.
        """
        return self(view).total()


def check_terms(criterion: Criterion, terms: object, rows: int) -> Terms:
    """``terms`` if they are what ``forward`` promises.

    Raises:
        IvraError: naming the criterion and what is wrong: no ``Terms``, an empty one, or a wrong
            shape.
        NotFiniteError: a value is not finite; with the term and the row.
    """
    name = criterion.name
    if not isinstance(terms, Terms) or not terms:
        raise IvraError(
            f"criterion '{name}' returned {type(terms).__name__}: expected a non-empty Terms"
        )
    for key, value in terms.items():
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if shape != (rows,):
            raise IvraError(
                f"criterion '{name}' returned term '{key}' of shape {shape}: expected one loss a "
                f"row, ({rows},)"
            )
        if not bool(torch.isfinite(value).all()):
            row = int(torch.isfinite(value).logical_not().nonzero()[0])
            came = float(value[row].detach())
            what = f"criterion '{name}' returned a term '{key}' that is not finite, {came}"
            raise NotFiniteError(what, row)
    return terms
