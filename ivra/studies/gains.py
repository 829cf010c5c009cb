"""What mixing costs or pays: ARG of every subset, accuracy beside the plain model, the front."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ivra.evaluation.gain import AverageRelativeGain, average_relative_gain
from ivra.explainers import ModuleExplainer
from ivra.losses import parse_criteria
from ivra.reports import Metric
from ivra.studies.columns import COLUMNS, OF_CRITERION
from ivra.studies.grid import Result
from ivra.studies.pareto import pareto_front
from ivra.studies.run import StudyResult
from ivra.studies.tables import Column, Row, Summary, Table, summary_of, value_of

PLAIN = "plain fine-tuned"
_MEASURES = {"accuracy": "accuracy", "answers": "exact_match"}
"""By the part of a result that holds it, the model's own share of right rows."""

Place = tuple[str, int]
"""A data set as tables call it, and a seed."""


class Gain(NamedTuple):
    """What training for ``criteria`` by ``method`` does to ``criterion``, against it alone.

    ``arg`` is over data sets and seeds, ``seeds`` the same for each seed by itself. ``member`` says
    whether the criterion is one of the criteria.
    """

    method: str
    criteria: tuple[str, ...]
    criterion: str
    member: bool
    arg: AverageRelativeGain
    seeds: tuple[float | None, ...]


class Point(NamedTuple):
    """A mixture on a data set: its figures (means over seeds), and whether no other mixture there
    is at least as good in all of them and better in one; ``None`` where one is undefined."""

    method: str
    criteria: tuple[str, ...]
    figures: dict[str, float | None]
    front: bool | None


@dataclass(frozen=True)
class Sweep:
    """All that a sweep says of one model."""

    model: str
    criteria: tuple[str, ...]
    methods: tuple[str, ...]
    gains: tuple[Gain, ...]
    accuracy: Table
    points: Mapping[str, tuple[Point, ...]]

    def gain(self, method: str, criteria: tuple[str, ...], criterion: str) -> Gain | None:
        """One cell of the heat map; ``None`` where nothing was trained."""
        wanted = (method, criteria, criterion)
        return next((g for g in self.gains if (g.method, g.criteria, g.criterion) == wanted), None)

    def subsets(self) -> list[tuple[str, ...]]:
        """The rows of the heat map."""
        return list(dict.fromkeys(gain.criteria for gain in self.gains))


def names_of(text: str) -> tuple[str, ...]:
    """The criteria of ``"sim,suff:0.5"`` without their weights."""
    return tuple(known.name for known in parse_criteria(text))


def metric_of(criterion: str) -> Metric:
    """The figure by which ``criterion`` is judged."""
    return COLUMNS[OF_CRITERION[criterion]]


def sweeps_of(found: StudyResult) -> list[Sweep]:
    """One for each model of a sweep.

    ARG is ``mean_t (m_t - b_t) / |b_t|`` over the data sets and seeds ``t``, the sign flipped where
    lower is better: ``m`` the criterion's figure after training for the subset, ``b`` after
    training for that criterion alone, of the same fine-tuned model. It is undefined, with the
    reason, where one of the ``t`` is.
    """
    criteria = tuple(c for c in map(names_of, found.study.criteria) if len(c) == 1)
    return [_of_model(found, model, tuple(c for (c,) in criteria)) for model in found.study.models]


def _of_model(found: StudyResult, model: str, criteria: tuple[str, ...]) -> Sweep:
    study = found.study
    cells = {
        (method, names_of(text)): _results(found, model, method, text)
        for method in study.methods
        for text in study.criteria_of(method)
    }
    first = study.first
    gains = [
        _gain(method, subset, criterion, results, cells[first, (criterion,)])
        for (method, subset), results in cells.items()
        for criterion in criteria
    ]
    data = list(dict.fromkeys(cell.data for cell in found.matrix.cells if cell.model == model))
    points = {name: tuple(_points(cells, criteria, name)) for name in data}
    table = _accuracy(found, model, cells, data)
    return Sweep(model, criteria, tuple(study.methods), tuple(gains), table, points)


def _results(found: StudyResult, model: str, method: str, text: str) -> dict[Place, Result | None]:
    wanted = (model, method, text)
    return {
        (cell.data, cell.cell.training.seed): found.results.get(cell.cell.name)
        for cell in found.matrix.cells
        if (cell.model, cell.method, cell.criterion) == wanted
    }


def _gain(
    method: str,
    subset: tuple[str, ...],
    criterion: str,
    mixed: Mapping[Place, Result | None],
    alone: Mapping[Place, Result | None],
) -> Gain:
    def arg(places: Sequence[Place]) -> AverageRelativeGain:
        key, better = metric_of(criterion).key, metric_of(criterion).better
        assert better is not None
        values, baselines = (
            {f"{data}, seed {seed}": _own(found[data, seed], key) for data, seed in places}
            for found in (mixed, alone)
        )
        return average_relative_gain(values, baselines, dict.fromkeys(values, better))

    seeds = list(dict.fromkeys(seed for _, seed in mixed))
    each = tuple(arg([place for place in mixed if place[1] == seed]).value for seed in seeds)
    return Gain(method, subset, criterion, criterion in subset, arg(list(mixed)), each)


def _own(result: Result | None, key: str) -> float | None:
    return value_of(result, ModuleExplainer.name, key)


def _points(
    cells: Mapping[tuple[str, tuple[str, ...]], Mapping[Place, Result | None]],
    criteria: tuple[str, ...],
    data: str,
) -> list[Point]:
    figures = {}
    for name, results in cells.items():
        here = [result for (place, _), result in results.items() if place == data]
        figures[name] = {
            c: summary_of(_own(result, metric_of(c).key) for result in here).mean for c in criteria
        }
    known = {name: own for name, own in figures.items() if None not in own.values()}
    signs = {c: 1 if metric_of(c).better == "higher" else -1 for c in criteria}
    front = pareto_front([[signs[c] * (own[c] or 0.0) for c in criteria] for own in known.values()])
    on = dict(zip(known, front, strict=True))
    return [Point(*name, own, on.get(name)) for name, own in figures.items()]


def _accuracy(
    found: StudyResult,
    model: str,
    cells: Mapping[tuple[str, tuple[str, ...]], Mapping[Place, Result | None]],
    data: Sequence[str],
) -> Table:
    """Table 5 of the paper: every mixture beside the model before it was trained by criteria."""

    def summaries(results: Mapping[Place, Result | None], plain: bool) -> tuple[Summary, ...]:
        return tuple(
            summary_of(right_share(r, plain) for (place, _), r in results.items() if place == name)
            for name in data
        )

    first = next(iter(cells.values()))
    rows = [Row(PLAIN, False, summaries(first, plain=True))]
    several = len(found.study.methods) > 1
    for (method, subset), results in cells.items():
        label = " + ".join(subset)
        alone = len(subset) == 1 and method == found.study.first
        label = f"{label} ({method})" if several and not alone else label
        rows.append(Row(label, True, summaries(results, plain=False)))
    columns = tuple(Column(name, COLUMNS["accuracy"]) for name in data)
    title = "Accuracy on the task"
    return Table(title, model, columns, tuple(rows), len(found.study.seeds))


def right_share(result: Result | None, plain: bool = False) -> float | None:
    """The share of rows that the model gets right, or that the ``plain`` one did: accuracy, or
    exact match of answers."""
    for part, key in _MEASURES.items():
        if result is not None and part in result:
            own = result[part]["plain"] if plain else result[part]
            return None if own is None else float(own[key])
    return None
