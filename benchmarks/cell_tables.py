"""Reading the cells of studies: their names, figures and how they are printed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ivra.studies import Summary, summary_of

RESULTS = Path(__file__).parent / "results"
CELLS = RESULTS / "paper"
STATIC = {
    "none": "no explanation",
    "random": "random",
    "untrained": "untrained module",
    "attention": "mean attention",
    "attention-last": "last-layer attention",
    "input-x-gradient": "Input x Gradient",
    "integrated-gradients": "Integrated Gradients, 50 steps",
    "occlusion": "occlusion",
    "lime": "LIME, 500 texts",
    "lime:samples=100": "LIME, 100 texts",
}
METHODS = {
    "smat": "SMaT",
    "ivra-softmax": "IvRA-softmax",
    "ivra-sparsemax": "IvRA-sparsemax",
    "ivra-value": "ivra with values",
    "ivra-fidelity": "ivra with values and readout",
}
SETS = {"sst2": "SST-2", "esnli": "e-SNLI", "imdb": "IMDb"}
"""Those whose table of one pass against hundreds is shown, by the name their authors give them."""
BETTER = {"comp": 1, "suff": -1, "cons": 1, "sim": 1}


class Made(NamedTuple):
    """A cell's file, and what its name says."""

    data: str
    method: str | None
    criterion: str | None
    result: dict[str, Any]


def cells(folder: Path = CELLS) -> list[Made]:
    """Every cell of the studies in a folder, by name."""
    found = []
    for path in sorted(folder.glob("*/cells/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        _, data, *rest = result["cell"]["group"].split("_")
        method, criterion = rest if len(rest) == 2 else (None, None)
        found.append(Made(data, method, criterion, result))
    return found


def explained(made: Iterable[Made], data: str, name: str, metric: str) -> Summary:
    """A figure of an explainer without training."""
    return summary_of(
        one.result["figures"][name].get(metric)
        for one in made
        if one.data == data and one.method is None and name in one.result["figures"]
    )


def trained(made: Iterable[Made], data: str, method: str, criterion: str, metric: str) -> Summary:
    """A figure of a trained method over seeds."""
    place = (data, method, criterion)
    return summary_of(
        one.result["figures"]["ivra"].get(metric)
        for one in made
        if (one.data, one.method, one.criterion) == place
    )


def shown(summary: Summary) -> str:
    """Mean and standard error."""
    if summary.mean is None:
        return "-"
    error = "" if summary.error is None else f" ± {summary.error:.3f}"
    return f"{summary.mean + 0.0:.3f}{error}"
