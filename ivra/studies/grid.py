"""Many runs at once: a list of cells, one JSON a cell, finished cells never repeated."""

import json
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ivra.evaluation import EvalConfig, evaluate
from ivra.storage import write_json_atomic
from ivra.training import TrainConfig, load_run, train

Result = dict[str, Any]
"""An evaluation as its JSON file holds it, with the cell it belongs to."""


@dataclass(frozen=True)
class Cell:
    """One run of a study: how it is trained and judged.

    ``group`` names what is compared; cells of a group differ in their seed only.
    """

    group: str
    training: TrainConfig
    evaluation: EvalConfig

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
) -> Result:
    """The evaluation of a cell: read from ``output/<name>.json`` if it is there, else made.

    The run itself stands in ``runs/<name>``: a finished one is not trained again, the remains of
    one that was killed or interrupted are removed. An interrupt is raised,
    with no JSON written. ``places`` are folders of this machine, and what stands for each in the
    JSON.
    """
    target = output / f"{cell.name}.json"
    if target.is_file():
        found: Result = json.loads(target.read_text(encoding="utf-8"))
        return found
    folder = runs / cell.name
    run = load_run(folder, device) if (folder / "run.json").is_file() else None
    if run is None or run.record.get("interrupted"):
        shutil.rmtree(folder, ignore_errors=True)
        run = train(cell.training, output=runs, name=cell.name, device=device)
    if run.record["interrupted"]:
        raise KeyboardInterrupt(f"{folder} was cut short and will be trained again")
    result: Result = evaluate(run, cell.evaluation)
    result["cell"] = {"group": cell.group, "evaluation": asdict(cell.evaluation)}
    result["training"] = run.record
    text = json.dumps(result)
    for folder_here, name in places.items():
        text = text.replace(json.dumps(folder_here)[1:-1], name)
    result = json.loads(text)
    write_json_atomic(target, result)
    return result


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
