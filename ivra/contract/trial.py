"""One criterion on trial: built anew for every question, so that nothing is remembered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ivra.attention import masked_softmax
from ivra.contract.models import Kind, Model, StandIn, tiny_student
from ivra.contract.rows import make_batch, make_items
from ivra.data import Batch, Item
from ivra.losses import AOPC_BINS, Criterion, Setup, Student, Terms, View, check_terms
from ivra.shapes import Logits, Rows, Saliency, TokenScores

Make = Callable[[Setup], Criterion]
"""Builds a criterion, for instance ``Sufficiency.build``."""


class Broken(Exception):  # noqa: N818 - a verdict, not a mistake of the program
    """The clause does not hold: what was expected, what came."""


class NotApplicable(Exception):  # noqa: N818
    """The clause says nothing about this criterion: why."""


@dataclass
class Stage:
    """Shows a model to a criterion, and writes down what the criterion asks for.

    ``keeps`` are the arguments of its reruns and ``others`` the views of the other rows it asked
    for, in order. ``nudges[i]`` is added to the i-th ``keep``, which is then a constant
    otherwise; ``steered[i]`` are scores of the explainable tokens of the i-th other rows,
    whose softmax is their saliency then. All that is shown is rounded to ``rounding`` and has the
    precision ``dtype``.
    """

    model: Model
    dtype: torch.dtype = torch.float64
    rounding: torch.dtype = torch.float64
    nudges: Sequence[Tensor] = ()
    steered: Sequence[Tensor] = ()
    keeps: list[Tensor] = field(default_factory=list)
    others: list[View] = field(default_factory=list)

    def view(self, batch: Batch, saliency: Saliency | None = None) -> View:
        """What a criterion sees of ``batch``; ``saliency`` instead of the model's own."""
        shown = self.model.show(batch)
        logits, own, hidden = (self._rounded(value) for value in shown)
        if saliency is None:
            saliency = own.requires_grad_()
        return View(
            batch, logits, saliency, hidden, lambda keep: self._rerun(batch, keep), self._on
        )

    def _rerun(self, batch: Batch, keep: TokenScores) -> Logits:
        place = len(self.keeps)
        self.keeps.append(keep)
        if self.nudges:
            keep = keep.detach() + self.nudges[place]
        return self._rounded(self.model.rerun(batch, keep))

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(self.rounding).to(self.dtype)

    def _on(self, batch: Batch) -> View:
        place = len(self.others)
        saliency = projected(self.steered[place], batch) if self.steered else None
        view = self.view(batch, saliency)
        self.others.append(view)
        return view


@dataclass(frozen=True)
class Values:
    """What a criterion says of some rows: its terms, detached, and its metric."""

    terms: dict[str, Rows]
    metric: Rows

    def at(self, rows: Sequence[int]) -> "Values":
        """Those of some rows, in the order given."""
        places = list(rows)
        return Values({k: v[places] for k, v in self.terms.items()}, self.metric[places])


@dataclass(frozen=True)
class Trial:
    """A criterion and the rows it is tried on.

    ``options`` are what a user would have set of it, ``new_student`` gives whom it scaffolds.

    Every value is that of a criterion built anew from one seed, so that two of them differ only
    if what was shown differs.
    """

    make: Make
    lengths: tuple[int, ...] = (3, 7, 1, 5)
    seed: int = 0
    gradient: str = "straight-through"
    options: Mapping[str, Any] = field(default_factory=dict)
    new_student: Callable[[], Student] = tiny_student

    @property
    def items(self) -> list[Item]:
        """The rows."""
        return make_items(self.lengths, self.seed)

    @property
    def batch(self) -> Batch:
        """The rows, padded on the right."""
        return make_batch(self.items)

    def model(self, kind: Kind = "soft") -> StandIn:
        """The stand-in model of this trial."""
        return StandIn(self.seed, kind)

    def view(self, batch: Batch | None = None, kind: Kind = "soft") -> View:
        """The stand-in's view of ``batch``, by default the trial's own rows."""
        return Stage(self.model(kind)).view(self.batch if batch is None else batch)

    def with_gradient(self, gradient: str) -> "Trial":
        """The same with cuts differentiated by ``gradient``."""
        return replace(self, gradient=gradient)

    def criterion(self, dtype: torch.dtype = torch.float64) -> Criterion:
        """One built anew, its own parameters in ``dtype``."""
        setup = Setup(
            seed=self.seed,
            bins=AOPC_BINS,
            gradient=self.gradient,
            new_student=self.new_student,
            options=self.options,
        )
        with self._seeded():
            return self.make(setup).to(dtype)

    def terms(self, view: View, criterion: Criterion | None = None) -> Terms:
        """``forward(view)``, checked for what every run checks."""
        chosen = criterion or self.criterion(view.saliency.dtype)
        with self._seeded():
            return check_terms(chosen, chosen(view), len(view.batch))

    def metric(self, view: View, criterion: Criterion | None = None) -> Tensor:
        """``metric(view)`` as validation calls it, without gradients; NaN where it is undefined.

        Raises:
            Broken: another shape than ``(B,)``, or an infinite value.
        """
        chosen = criterion or self.criterion(view.saliency.dtype)
        with self._seeded(), torch.no_grad():
            metric = chosen.metric(view)
        if metric.shape != (len(view.batch),):
            raise Broken(f"expected a metric ({len(view.batch)},), got {tuple(metric.shape)}")
        if bool(metric.isinf().any()):
            raise Broken(f"expected a metric that is finite or NaN, got {metric.tolist()}")
        return metric

    def values(self, view: View) -> Values:
        """Terms and metric, without gradients."""
        terms = {name: value.detach() for name, value in self.terms(view).items()}
        return Values(terms, self.metric(view))

    @contextmanager
    def _seeded(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            yield


def projected(scores: Tensor, batch: Batch) -> Saliency:
    """The softmax over each row of ``scores``, one for each explainable token in order."""
    blank = torch.zeros(batch.explainable.shape, dtype=scores.dtype)
    return masked_softmax(blank.masked_scatter(batch.explainable, scores), batch.explainable)


def compare(expected: Values, found: Values, tolerance: float = 1e-6) -> None:
    """Check that both say the same of every row; a metric that is NaN (undefined) in both does.

    Raises:
        Broken: naming the term, the row and both numbers of the largest difference.
    """
    if list(expected.terms) != list(found.terms):
        raise Broken(f"expected the terms {list(expected.terms)}, got {list(found.terms)}")
    pairs = [(f"term '{name}'", expected.terms[name], found.terms[name]) for name in found.terms]
    for what, one, other in (*pairs, ("the metric", expected.metric, found.metric)):
        a, b = one.double(), other.double()
        apart = (a - b).abs() / (1 + a.abs())
        apart = torch.where(torch.isfinite(apart), apart, torch.inf)
        apart = torch.where(a.isnan() & b.isnan(), 0.0, apart)
        if len(apart) and float(apart.max()) > tolerance:
            row = int(apart.argmax())
            raise Broken(f"expected {what} {a[row]:.6g} in row {row}, got {b[row]:.6g}")
