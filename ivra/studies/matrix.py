"""From a study to its cells, and whether cells that are there were made as asked now."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ivra.errors import IvraError
from ivra.evaluation import EvalConfig
from ivra.losses import parse_criteria
from ivra.reports import Metric
from ivra.studies.columns import columns_of, metrics_of
from ivra.studies.grid import Cell, placed
from ivra.studies.methods import SHARED
from ivra.studies.spec import (
    DataSet,
    Study,
    TestSet,
    Values,
    eval_config,
    method_changes,
    slug,
    training_config,
)
from ivra.training import TrainConfig
from ivra.training.pairs import numbers_of

DATA_VARIABLE = "IVRA_DATA"
CELLS, RUNS = "cells", "runs"
STATIC = "static"
ALONE = "alone"
"""As ``init_module`` of a method: the first method's runs of each criterion alone."""
_BASE_STEPS = {
    "criteria": "suff",
    "max_steps": 1,
    "validations": 1,
    "topk_gradient": "straight-through",
}
"""Of the run that fine-tunes: a module is part of every run, and this one's is not used."""
_OF_BASE = (
    *SHARED,
    "batch_size",
    "batching",
    "clip",
    "validation_rows",
    "bins",
    "student",
    "student_rows",
    "student_lr",
    "student_beta",
    "student_divergence",
)


@dataclass(frozen=True)
class StudyCell:
    """A cell and its place in the tables.

    ``method`` and ``criterion`` are ``None`` for the static explainers. ``base_run`` is the
    folder of the fine-tuned model.
    """

    cell: Cell
    model: str
    data: str
    method: str | None
    criterion: str | None
    base: TrainConfig
    base_run: str

    @property
    def kind(self) -> tuple[str, str, str | None]:
        """What cells of about the same cost share."""
        return self.model, self.data, self.method and f"{self.method} {self.criterion}"


@dataclass(frozen=True)
class Matrix:
    """The cells of a study in the order in which they run, the folder of their runs, and what
    stands for folders of this machine in their files."""

    cells: tuple[StudyCell, ...]
    runs: Path
    places: Mapping[str, str]
    columns: tuple[Metric, ...]


def runs_folder(output: Path, runs: str | Path | None = None) -> Path:
    """Where a study's runs stand: ``runs``, or the folder of that name in ``output``."""
    return output / RUNS if runs is None else Path(runs)


def matrix_of(study: Study, runs: Path, data_folder: str | Path | None = None) -> Matrix:
    """The cells of ``study``, with fine-tuned models under ``runs``.

    Args:
        data_folder: where data sets are looked for first, a folder each (default: the variable
            ``IVRA_DATA``).

    Raises:
        IvraError: two cells with one name, or a combination that no run can have.
    """
    folder = data_folder or os.environ.get(DATA_VARIABLE) or None
    builder = _Builder(study, runs.resolve(), None if folder is None else Path(folder).resolve())
    cells = tuple(builder.cells())
    seen: dict[str, StudyCell] = {}
    for found in cells:
        if found.cell.name in seen:
            raise IvraError(
                f"two cells of '{study.name}' are called {found.cell.name}: expected names of "
                "models, data sets and methods that differ in letters, digits or . + ="
            )
        seen[found.cell.name] = found
    return Matrix(cells, builder.runs, builder.places, builder.columns)


class _Builder:
    """Makes the cells; ``places`` is filled on the way."""

    def __init__(self, study: Study, runs: Path, folder: Path | None) -> None:
        self.study = study
        self.runs = runs
        self.folder = folder
        self.columns = columns_of(study.columns, study.criteria)
        self.places: dict[str, str] = {}
        if folder is not None:
            self.places[str(folder)] = f"${DATA_VARIABLE}"

    def cells(self) -> Iterator[StudyCell]:
        study = self.study
        for data_name, data in study.data.items():
            for model_name, model in study.models.items():
                for seed in study.seeds:
                    yield from self._of_one_model(data_name, data, model_name, model, seed)

    def _of_one_model(
        self, data_name: str, data: DataSet, model_name: str, model: str, seed: int
    ) -> Iterator[StudyCell]:
        study, clock = self.study, self.study.clock_rows
        shared = {**study.training, **data.training}
        if shared.get("student"):
            shared["student"] = self._model(Path(shared["student"]).name, shared["student"])
        start = self._model(model_name, model)
        tuning = seed if study.model_seed is None else study.model_seed
        base = self._base(shared, start, self._source(data.source or data_name), tuning)
        prefix = f"{slug(model_name)}_{slug(data_name)}"
        base_run = f"{prefix}_base-seed{tuning}"
        tuned = str(self.runs / base_run / "model")
        self.places[tuned] = f"{model_name} fine-tuned on {data_name}, seed {tuning}"
        again = study.model_seed is not None and seed != study.seeds[0]
        for suffix, shown, judged in self._judged(data_name, data, seed):
            if study.explainers and not again:
                static = replace(judged, explainers=study.explainers)
                group = f"{prefix}_{STATIC}{suffix}"
                cell = Cell(group, base, static, base_run, clock_rows=clock)
                yield StudyCell(cell, model_name, shown, None, None, base, base_run)
            for method in study.methods:
                for criterion in study.criteria_of(method):
                    training = self._trained(shared, method, criterion, tuned, base, seed)
                    if training.init_module == (ALONE,):
                        training = self._warm(
                            training, f"{prefix}_{slug(study.first)}", f"-seed{seed}"
                        )
                    group = f"{prefix}_{slug(method)}_{slug(criterion)}"
                    run = f"{prefix}_{slug(method)}_{slug(training.criteria)}-seed{seed}"
                    own = _preferring(judged, training, criterion)
                    cell = Cell(f"{group}{suffix}", training, own, run, base, clock)
                    yield StudyCell(cell, model_name, shown, method, criterion, base, base_run)

    def _base(self, shared: Values, start: str, source: str, seed: int) -> TrainConfig:
        own = {key: value for key, value in shared.items() if key in _OF_BASE}
        fixed = {"model": start, "data": source, "seed": seed, **_BASE_STEPS}
        return training_config(self.study, {**own, **fixed})

    def _trained(
        self,
        shared: Values,
        method: str,
        criterion: str,
        tuned: str,
        base: TrainConfig,
        seed: int,
    ) -> TrainConfig:
        values = {**shared, "criteria": criterion, **method_changes(self.study, method)}
        named = [known.name for known in parse_criteria(str(values["criteria"]))]
        own: Values = {}
        for key in ("options", "bound", "final_weights"):
            given = numbers_of(values.get(key, {}))
            own[key] = {k: v for k, v in dict(given).items() if k in named}  # type: ignore[call-overload]
        if values.get("combine") == "constrained" and not own["bound"]:
            own["combine"] = "sum"
        for key in ("finetune_epochs", "finetune_lr", "finetune_weight_decay", "finetune_removal"):
            values.pop(key, None)
        fixed = {"model": tuned, "data": base.data, "seed": seed, "finetune": "never"}
        student = {"student": values.get("student") or base.model}
        return training_config(self.study, {**values, **fixed, **student, **own})

    def _warm(self, training: TrainConfig, prefix: str, suffix: str) -> TrainConfig:
        """``training`` from the runs of the first method for each of its criteria alone."""
        every = {text: parse_criteria(text) for text in self.study.criteria}
        single = {named[0].name: text for text, named in every.items() if len(named) == 1}
        starts = []
        for name, _ in parse_criteria(training.criteria):
            if name not in single:
                raise IvraError(
                    f"init_module is {ALONE}, but the study does not train for {name} alone: add "
                    f"{name} to its criteria"
                )
            run = f"{prefix}_{slug(single[name])}{suffix}"
            self.places[str(self.runs / run)] = f"the run {run}"
            starts.append(str(self.runs / run))
        return training.model_copy(update={"init_module": tuple(starts)})

    def _judged(
        self, data_name: str, data: DataSet, seed: int
    ) -> Iterator[tuple[str, str, EvalConfig]]:
        """What the cells' names end in, what the tables call it, and the evaluation."""
        tests: dict[str, TestSet | None] = {**data.test} or {data_name: None}
        for name, test in tests.items():
            values: Values = {
                "metrics": metrics_of(self.columns),
                "explainers": (),
                "controls": (),
                **self.study.evaluation,
                **data.evaluation,
                "seed": seed,
            }
            if test is None:
                yield "", data_name, eval_config(values)
                continue
            values |= {"data": self._source(test.source or name), "split": test.split}
            yield (
                f"_on-{slug(name)}",
                f"{data_name} \N{RIGHTWARDS ARROW} {name}",
                eval_config(values),
            )

    def _source(self, source: str) -> str:
        """A folder of the folder of data sets, a file or folder as an absolute path, or a name."""
        if self.folder is not None and (self.folder / source).exists():
            return str(self.folder / source)
        return self._model(source, source) if source != "builtin" else source

    def _model(self, name: str, model: str) -> str:
        path = Path(model).expanduser()
        if model.startswith("tiny-") or not path.exists():
            return model
        self.places[str(path.resolve())] = name
        return str(path.resolve())


def _preferring(judged: EvalConfig, training: TrainConfig, criterion: str) -> EvalConfig:
    """A run that knows every trade-off of its criteria is judged by that of the cell."""
    if not training.preferences:
        return judged
    return replace(judged, preference={k.name: k.weight for k in parse_criteria(criterion)})


def difference(found: StudyCell, places: Mapping[str, str], made: Mapping[str, Any]) -> str | None:
    """The first key in which a cell's file differs from what is asked now, with both values.

    An option of training or evaluation that the file does not know, since it is newer, had its
    default.
    """
    cell, told = found.cell, made.get("cell", {})
    plain = TrainConfig().model_dump(mode="json")
    judged = json.loads(json.dumps(asdict(EvalConfig())))
    asked = {
        "training": cell.training.model_dump(mode="json"),
        "evaluation": asdict(cell.evaluation),
        "base": None if cell.base is None else cell.base.model_dump(mode="json"),
        "clock_rows": cell.clock_rows,
    }
    before = {
        "training": plain | made.get("config", {}),
        "evaluation": judged | told.get("evaluation", {}),
        "base": plain | told["base"] if told.get("base") else None,
        "clock_rows": told.get("clock_rows", 0),
    }
    return _differs(placed(json.loads(json.dumps(asked)), places), before, ())


def training_difference(asked: TrainConfig, made: TrainConfig) -> str | None:
    """The first key in which two configurations of training differ, with both values."""
    return _differs(asked.model_dump(mode="json"), made.model_dump(mode="json"), ())


def _differs(asked: object, made: object, keys: Sequence[str]) -> str | None:
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        for key in dict.fromkeys((*asked, *made)):
            found = _differs(asked.get(key), made.get(key), (*keys, str(key)))
            if found is not None:
                return found
        return None
    if asked == made:
        return None
    return f"{'.'.join(keys)} {json.dumps(made)}, and {json.dumps(asked)} is asked for now"
