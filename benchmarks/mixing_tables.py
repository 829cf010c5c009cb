"""What ``docs/mixing.md`` shows: the sweeps in ``results/mixing``, one a data set."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ivra.studies import markdown

SWEEPS = Path(__file__).parent / "results" / "mixing"

Sweep = dict[str, Any]


def mixing() -> str:
    """All sweeps: figures of each criterion alone, ARG of every mixture, the counts."""
    found = {path.parent.name: _read(path) for path in sorted(SWEEPS.glob("*/sweep.json"))}
    if not found:
        return "Nothing yet: `python benchmarks/mixing.py` measures it.\n"
    parts = [_alone(found)]
    for name, sweep in found.items():
        parts += [f"ARG in percent, {name}: {' / '.join(_mixing(sweep))}", "", _gains(sweep)]
    corners = _corners(found)
    return "\n".join([*parts, *_summary(found), *(["", corners] if corners else [])]) + "\n"


def _read(path: Path) -> Sweep:
    whole = json.loads(path.read_text(encoding="utf-8"))
    return {**whole["models"][0], "seeds": whole["seeds"]}


def _mixing(sweep: Sweep) -> list[str]:
    return [method for method in sweep["methods"] if not method.startswith("preference")]


def _figures(sweep: Sweep, method: str, criteria: list[str]) -> dict[str, float]:
    (front,) = sweep["front"].values()
    return next(
        point["figures"]
        for point in front["points"]
        if point["method"] == method and point["criteria"] == criteria
    )


def _alone(found: dict[str, Sweep]) -> str:
    """The figures that ARG is relative to, and the accuracies."""
    criteria = next(iter(found.values()))["criteria"]
    rows = []
    for name, sweep in found.items():
        for criterion in criteria:
            figures = _figures(sweep, sweep["alone"], [criterion])
            rows.append([name, criterion, *(f"{figures[other]:.3f}" for other in criteria)])
    return markdown(["data", "trained for, alone", *(c.upper() for c in criteria)], rows)


def _cell(sweep: Sweep, methods: Iterable[str], criteria: list[str], criterion: str) -> str:
    said, member = [], False
    for method in methods:
        for gain in sweep["arg"]:
            place = (gain["method"], gain["criteria"], gain["criterion"])
            if place == (method, criteria, criterion):
                said.append(_percent(gain["arg"]))
                member = gain["member"]
    text = " / ".join(said)
    return f"**{text}**" if member and text else text


def _percent(value: float | None) -> str:
    if value is None:
        return "undef."
    text = f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}")
    return "0" if text[1:] == "0" else text


def _subsets(sweep: Sweep) -> list[list[str]]:
    every = dict.fromkeys(tuple(gain["criteria"]) for gain in sweep["arg"])
    return [list(one) for one in every if len(one) > 1]


def _gains(sweep: Sweep) -> str:
    rows = [
        [" + ".join(one), *(_cell(sweep, _mixing(sweep), one, c) for c in sweep["criteria"])]
        for one in _subsets(sweep)
    ]
    return markdown(["trained for", *(c.upper() for c in sweep["criteria"])], rows)


def _summary(found: dict[str, Sweep]) -> list[str]:
    return [
        f"* {name}, {line}"
        for name, sweep in found.items()
        for line in sweep["summary"]
        if not line.startswith("preference")
    ]


def _corners(found: dict[str, Sweep]) -> str:
    """One run of ``preference``, read once for each criterion at its own corner."""
    rows = []
    for name, sweep in found.items():
        for method in sweep["methods"]:
            if method.startswith("preference"):
                own = (_cell(sweep, [method], [c], c).strip("*") for c in sweep["criteria"])
                rows.append([name, *own])
    if not rows:
        return ""
    criteria = next(iter(found.values()))["criteria"]
    return markdown(
        ["ARG in percent, one run", *(f"{c.upper()} at `{c}=1`" for c in criteria)], rows
    )
