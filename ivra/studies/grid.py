"""Many runs at once: a list of cells, one JSON a cell, finished cells never repeated."""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ivra.evaluation import EvalConfig, evaluate
from ivra.storage import write_json_atomic
from ivra.studies.clock import StepClock, explain_seconds, read_clock, write_clock
from ivra.training import Run, TrainConfig, load_run, train

Result = dict[str, Any]
"""An evaluation as its JSON file holds it, with the cell it belongs to."""


@dataclass(frozen=True)
class Cell:
    """One run of a study: how it is trained and judged.

    ``group`` names what is compared; cells of a group differ in their seed only. ``run`` is the
    folder of the run where several cells judge the same one. ``base`` is how the model that the
    run starts from was trained, if it comes from the study itself. ``clock_rows`` are rows on
    which the explainers are timed.
    """

    group: str
    training: TrainConfig
    evaluation: EvalConfig
    run: str | None = None
    base: TrainConfig | None = None
    clock_rows: int = 0

    @property
    def name(self) -> str:
        """The cell's folder and file."""
        return f"{self.group}-seed{self.training.seed}"


def run_cell(
    cell: Cell,
    output: Path,
    runs: Path,
    device: str = "cpu",
    places: Mapping[str, str] = MappingProxyType({}),
    watch: Callable[[str], None] = lambda what: None,
) -> Result:
    """The evaluation of a cell: read from ``output/<name>.json`` if it is there, else made.

    The run itself stands in ``runs``, see :func:`ready_run`. An interrupt is raised,
    with no JSON written. ``places`` are folders of this machine, and what stands for each in the
    JSON. ``watch`` is told what is going on.
    """
    target = output / f"{cell.name}.json"
    if target.is_file():
        found: Result = json.loads(target.read_text(encoding="utf-8"))
        return found
    watch("training")
    run = ready_run(cell.training, runs, cell.run or cell.name, device)
    started = time.perf_counter()
    result: Result = evaluate(run, cell.evaluation, watch)
    seconds = {"training": run.record["seconds"]}
    seconds["evaluation"] = round(time.perf_counter() - started, 1)
    if cell.clock_rows:
        watch("timing the explainers")
        for name, value in explain_seconds(run, cell.evaluation, cell.clock_rows).items():
            result["figures"].setdefault(name, {})["explain_seconds"] = value
    result["cell"] = {"group": cell.group, "evaluation": asdict(cell.evaluation)}
    result["cell"] |= {"seconds": seconds, "step_seconds": read_clock(run.path)}
    if cell.clock_rows:
        result["cell"]["clock_rows"] = cell.clock_rows
    if cell.base is not None:
        result["cell"]["base"] = cell.base.model_dump(mode="json")
    result["training"] = run.record
    result = placed(json.loads(json.dumps(result)), places)
    write_json_atomic(target, result)
    return result


def ready_run(training: TrainConfig, runs: Path, name: str, device: str = "cpu") -> Run:
    """The run ``runs/<name>``: read back if it is finished, else trained.

    The remains of one that was killed or interrupted are removed first.

    Raises:
        KeyboardInterrupt: the training was cut short, and will begin anew next time.
    """
    folder = runs / name
    run = load_run(folder, device) if (folder / "run.json").is_file() else None
    if run is None or run.record.get("interrupted"):
        shutil.rmtree(folder, ignore_errors=True)
        clock = StepClock()
        run = train(training, output=runs, name=name, device=device, hooks=(clock,))
        write_clock(run.path, clock)
    if run.record["interrupted"]:
        raise KeyboardInterrupt(f"{folder} was cut short and will be trained again")
    return run


def placed(data: Any, places: Mapping[str, str]) -> Any:
    """``data`` with every text that is a folder of ``places``, or a path in one, renamed.

    The longest folder that fits is the one that counts.
    """
    if isinstance(data, dict):
        return {key: placed(value, places) for key, value in data.items()}
    if isinstance(data, list):
        return [placed(value, places) for value in data]
    if isinstance(data, str):
        for folder in sorted(places, key=len, reverse=True):
            if data == folder or data.startswith(f"{folder}/"):
                return places[folder] + data.removeprefix(folder)
    return data


def figure(result: Result, explainer: str, metric: str) -> float | None:
    """One figure of an evaluation; ``None`` where it is undefined."""
    value = result["figures"].get(explainer, {}).get(metric)
    return None if value is None else float(value)


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """``mean (least to largest)`` of the defined values, for a table."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.{digits}f}"
    if len(known) == 1:
        return mean
    return f"{mean} ({min(known):.{digits}f} to {max(known):.{digits}f})"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
