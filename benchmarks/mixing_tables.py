"""What ``docs/mixing.md`` shows: the sweeps in ``results/mixing``, one a data set."""

import json
from pathlib import Path
from typing import Any

from ivra.studies import markdown
from ivra.studies.sweep_plots import percent
from ivra.studies.sweep_write import UNDEFINED

SWEEPS = Path(__file__).parent / "results" / "mixing"

Sweep = dict[str, Any]


def mixing() -> str:
    """All sweeps: figures of each criterion alone, ARG of every mixture, the counts."""
    found = {path.parent.name: _read(path) for path in sorted(SWEEPS.glob("*/sweep.json"))}
    if not found:
        return "Nothing yet: `python benchmarks/mixing.py` measures it.\n"
    parts = [_alone(found)]
    for name, sweep in found.items():
        mixed = [way for way in sweep["methods"] if way not in _slides_of(sweep)]
        parts += [f"ARG in percent, {name}: {' / '.join(mixed)}", "", _gains(sweep)]
    parts += [_slides(found)] if any(map(_slides_of, found.values())) else []
    parts += [f"* {name}, {line}" for name, sweep in found.items() for line in sweep["summary"]]
    return "\n".join(parts) + "\n"


def _read(path: Path) -> Sweep:
    return json.loads(path.read_text(encoding="utf-8"))["models"][0]


def _figures(sweep: Sweep, method: str, criteria: list[str]) -> dict[str, float]:
    (front,) = sweep["front"].values()
    return next(
        point["figures"]
        for point in front["points"]
        if point["method"] == method and point["criteria"] == criteria
    )


def _alone(found: dict[str, Sweep]) -> str:
    """The figures that ARG is relative to, and what each criterion alone does to the others."""
    criteria = next(iter(found.values()))["criteria"]
    rows = []
    for name, sweep in found.items():
        for criterion in criteria:
            figures = _figures(sweep, sweep["alone"], [criterion])
            rows.append([name, criterion, *(f"{figures[other]:.3f}" for other in criteria)])
    return markdown(["data", "trained for, alone", *(c.upper() for c in criteria)], rows)


def _slides_of(sweep: Sweep) -> list[str]:
    """The ways that are one run for every preference, judged for one criterion at a time."""
    alone = (g["method"] for g in sweep["arg"] if len(g["criteria"]) == 1)
    return [name for name in dict.fromkeys(alone) if name != sweep["alone"]]


def _slides(found: dict[str, Sweep]) -> str:
    """One run for all criteria, each judged where it alone is preferred: figure and ARG."""
    criteria = next(iter(found.values()))["criteria"]
    rows = []
    for name, sweep in found.items():
        for method in _slides_of(sweep):
            cells = []
            for one in criteria:
                figure = _figures(sweep, method, [one])[one]
                cells.append(f"{figure:.3f} ({_cell(sweep, [one], one, method)})")
            rows.append([name, method, *cells])
    return markdown(["data", "one run", *(c.upper() for c in criteria)], rows)


def _cell(sweep: Sweep, criteria: list[str], criterion: str, method: str | None = None) -> str:
    """ARG by every way of mixing, or one; bold where the criterion is trained for by mixing."""
    place = (criteria, criterion)
    gains = [g for g in sweep["arg"] if (g["criteria"], g["criterion"]) == place]
    gains = [g for g in gains if method in (None, g["method"])]
    text = " / ".join(UNDEFINED if gain["arg"] is None else percent(gain["arg"]) for gain in gains)
    return f"**{text}**" if gains[0]["member"] and method is None else text


def _subsets(sweep: Sweep) -> list[list[str]]:
    every = dict.fromkeys(tuple(gain["criteria"]) for gain in sweep["arg"])
    return [list(one) for one in every if len(one) > 1]


def _gains(sweep: Sweep) -> str:
    rows = [
        [" + ".join(one), *(_cell(sweep, one, criterion) for criterion in sweep["criteria"])]
        for one in _subsets(sweep)
    ]
    return markdown(["trained for", *(c.upper() for c in sweep["criteria"])], rows)
