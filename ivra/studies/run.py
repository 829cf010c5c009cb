"""Running a study: cell by cell, with what is finished left alone and what fails told of."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivra.errors import IvraError, first_line
from ivra.storage import write_json_atomic
from ivra.studies.grid import Result, placed, ready_run, run_cell
from ivra.studies.matrix import (
    CELLS,
    Matrix,
    StudyCell,
    difference,
    matrix_of,
    runs_folder,
    training_difference,
)
from ivra.studies.spec import Study
from ivra.training import make_config, read_config, versions

RECORD = "study.json"


class Watch:
    """What is told of a study as it goes; this one says nothing."""

    def on_cell(self, name: str) -> None:
        """A cell begins."""

    def on_part(self, what: str) -> None:
        """What is being done for it."""

    def on_done(self, name: str, failed: str | None) -> None:
        """It is finished, or failed for a reason."""


SILENT = Watch()


@dataclass(frozen=True)
class StudyResult:
    """Every cell's result by its name, and why the others have none."""

    study: Study
    matrix: Matrix
    results: Mapping[str, Result]
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A cell before it runs: whether it is finished, and how long it should take.

    ``seconds`` is the mean that finished cells of its kind took, with the fine-tuning it waits
    for; ``None`` where there are none to go by.
    """

    name: str
    finished: bool
    seconds: float | None


def plan(
    study: Study,
    output: Path,
    data_folder: str | Path | None = None,
    runs: str | Path | None = None,
) -> list[Planned]:
    """The cells of a study in their order, nothing run; for the rest see :func:`run_study`.

    Raises:
        IvraError: a finished cell was made otherwise than asked now.
    """
    where = runs_folder(output, runs)
    matrix = matrix_of(study, where, data_folder)
    done = finished_cells(matrix, output)
    costs: dict[tuple[str, str, str | None], list[float]] = {}
    for found in matrix.cells:
        if found.cell.name in done:
            spent = done[found.cell.name]["cell"]["seconds"]
            own = spent["training"] if found.method is not None else 0.0
            costs.setdefault(found.kind, []).append(own + spent["evaluation"])
    tuning = _tuning_seconds(matrix, where)
    ready: set[str] = set()
    planned = []
    for found in matrix.cells:
        finished = found.cell.name in done
        known = costs.get(found.kind)
        seconds = None if finished or not known else statistics.fmean(known)
        if not finished and found.base_run not in ready and not _is_ready(where, found.base_run):
            ready.add(found.base_run)
            first = tuning.get((found.model, found.base.data))
            seconds = None if seconds is None or first is None else seconds + first
        planned.append(Planned(found.cell.name, finished, seconds))
    return planned


def run_study(
    study: Study,
    output: Path,
    *,
    data_folder: str | Path | None = None,
    runs: str | Path | None = None,
    device: str = "cpu",
    watch: Watch = SILENT,
) -> StudyResult:
    """Run what is not finished yet, and write a JSON a cell under ``output``.

    ``runs`` is where fine-tuned models and trained modules stand (default: ``runs`` in
    ``output``); studies that share it share those that are the same.

    A cell that fails with an :class:`IvraError` is told of in the result, and the others go on.
    A kill at any moment loses the cell it falls into and no other: called again, the study goes
    on from there.

    Raises:
        IvraError: a finished cell was made otherwise than asked now; nothing is overwritten.
        KeyboardInterrupt: after an interrupt; what is finished stays.
    """
    where = runs_folder(output, runs)
    matrix = matrix_of(study, where, data_folder)
    results = finished_cells(matrix, output)
    _check_runs(matrix, where)
    _make_folders(output / CELLS, where)
    broken: dict[str, str] = {}
    failures: dict[str, str] = {}
    for found in matrix.cells:
        name = found.cell.name
        if name in results:
            continue
        watch.on_cell(name)
        try:
            if found.base_run in broken:
                raise IvraError(broken[found.base_run])
            results[name] = _run_one(found, matrix, output, where, device, watch, broken)
        except IvraError as error:
            failures[name] = str(error)
        watch.on_done(name, failures.get(name))
    ordered = {f.cell.name: results[f.cell.name] for f in matrix.cells if f.cell.name in results}
    record = {
        "study": study.model_dump(mode="json"),
        "versions": versions(),
        "cells": list(ordered),
        "failures": failures,
    }
    write_json_atomic(output / RECORD, placed_record(record, matrix))
    return StudyResult(study, matrix, ordered, failures)


def finished_cells(matrix: Matrix, output: Path) -> dict[str, Result]:
    """What the files of finished cells hold.

    Raises:
        IvraError: one of them was made otherwise than asked now, or cannot be read.
    """
    found: dict[str, Result] = {}
    for cell in matrix.cells:
        path = output / CELLS / f"{cell.cell.name}.json"
        if not path.is_file():
            continue
        made = _read(path)
        differs = difference(cell, matrix.places, made)
        if differs is not None:
            raise _otherwise(path, differs)
        found[cell.cell.name] = made
    return found


def placed_record(record: Mapping[str, Any], matrix: Matrix) -> Any:
    """``record`` without folders of this machine."""
    return placed(json.loads(json.dumps(record)), matrix.places)


def _run_one(
    found: StudyCell,
    matrix: Matrix,
    output: Path,
    runs: Path,
    device: str,
    watch: Watch,
    broken: dict[str, str],
) -> Result:
    if not _is_ready(runs, found.base_run):
        watch.on_part("fine-tuning")
        try:
            ready_run(found.base, runs, found.base_run, device)
        except IvraError as error:
            broken[found.base_run] = str(error)
            raise
    return run_cell(found.cell, output / CELLS, runs, device, matrix.places, watch.on_part)


def _check_runs(matrix: Matrix, runs: Path) -> None:
    """A run that is there, but whose cell is not, has to be one that the cell would make."""
    wanted = {found.base_run: found.base for found in matrix.cells}
    wanted |= {f.cell.run: f.cell.training for f in matrix.cells if f.cell.run is not None}
    for name, training in wanted.items():
        folder = runs / name
        if not (folder / "run.json").is_file():
            continue
        made = make_config(read_config(folder / "config.yaml"), str(folder / "config.yaml"))
        differs = training_difference(training, made)
        if differs is not None:
            raise _otherwise(folder, differs)


def _otherwise(path: Path, differs: str) -> IvraError:
    return IvraError(
        f"{path} was made with {differs}: choose another --output or --name, or remove it"
    )


def _is_ready(runs: Path, run: str) -> bool:
    record = runs / run / "run.json"
    return record.is_file() and not _read(record).get("interrupted")


def _tuning_seconds(matrix: Matrix, runs: Path) -> dict[tuple[str, str], float]:
    """What fine-tuning took, by model and data, where some of it is done."""
    spent: dict[tuple[str, str], dict[str, float]] = {}
    for found in matrix.cells:
        if _is_ready(runs, found.base_run):
            record = _read(runs / found.base_run / "run.json")
            key = (found.model, found.base.data)
            spent.setdefault(key, {})[found.base_run] = float(record["seconds"])
    return {key: statistics.fmean(values.values()) for key, values in spent.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IvraError(f"cannot read {path}: {first_line(error)}: remove it") from error
    if not isinstance(made, dict):
        raise IvraError(f"{path} holds no JSON object: remove it")
    return made


def _make_folders(*folders: Path) -> None:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IvraError(f"cannot make the folder {folder}: {first_line(error)}") from error
