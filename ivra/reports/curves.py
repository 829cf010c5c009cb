"""Training curves as inline SVG that takes its colours and type from the page."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ivra.reports.page import LogRecord

POINTS = 240
"""A line of more points than this is averaged over equal stretches of steps."""
TRAIN, VALID, AXES = "#010101", "#020202", "#030303"
COLOURS = {TRAIN: "var(--train)", VALID: "var(--valid)", AXES: "var(--rule-strong)"}


@dataclass(frozen=True)
class Curve:
    """The picture of one term: ``svg`` is safe to place in a page as it is."""

    term: str
    svg: str
    summary: str


def curves(log: Sequence[LogRecord]) -> tuple[Curve, ...]:
    """One picture a term, in the order in which the log first names them.

    A value that is ``None`` or not finite breaks its line. Terms without any value are left
    out. The same log gives the same bytes.
    """
    terms = list(dict.fromkeys(term for record in log for term in record["terms"]))
    drawn = []
    for index, term in enumerate(terms):
        lines = {split: _line(log, split, term) for split in ("train", "valid")}
        if any(math.isfinite(value) for line in lines.values() for _, value in line):
            drawn.append(Curve(term, _svg(lines, prefix=f"curve{index}-"), _summary(lines)))
    return tuple(drawn)


def _line(log: Sequence[LogRecord], split: str, term: str) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for record in sorted(log, key=lambda record: record["step"]):
        if record["split"] == split and term in record["terms"]:
            value = record["terms"][term]
            known = math.nan if value is None or not math.isfinite(value) else float(value)
            points.append((float(record["step"]), known))
    if len(points) <= POINTS:
        return points
    width = math.ceil(len(points) / POINTS)
    chunks = (points[i : i + width] for i in range(0, len(points), width))
    return [
        (sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk))
        for chunk in chunks
    ]


def _summary(lines: dict[str, list[tuple[float, float]]]) -> str:
    parts = []
    for split, line in lines.items():
        values = [value for _, value in line if math.isfinite(value)]
        if values:
            parts.append(f"{split} from {values[0]:.3g} to {values[-1]:.3g}")
    return ", ".join(parts)


def _svg(lines: dict[str, list[tuple[float, float]]], prefix: str) -> str:
    # matplotlib takes a second to import; only a page with a log pays for it.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "ivra", "font.size": 8}):
        figure = Figure(figsize=(2.7, 1.75), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for split, line in lines.items():
            if not line:
                continue
            steps, values = zip(*line, strict=True)
            valid = split == "valid"
            axes.plot(
                steps,
                values,
                color=VALID if valid else TRAIN,
                linewidth=1.6 if valid else 1.0,
                marker="o" if valid and len(line) <= 30 else None,
                markersize=3,
                solid_capstyle="round",
                zorder=3 if valid else 2,
            )
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(AXES)
        axes.tick_params(color=AXES, labelcolor=AXES, length=3, width=0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color=AXES, alpha=0.35, linewidth=0.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return _inlined(target.getvalue(), prefix)


def _inlined(svg: str, prefix: str) -> str:
    """Without prologue, namespaces and metadata; ids of its own; colours and type of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'(id="|href="#|url\(#)', lambda match: match[0] + prefix, svg)
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r"(<text [^>]*?style=\"[^\"]*?)fill: " + AXES, r"\1fill: var(--muted)", svg)
    for sentinel, colour in COLOURS.items():
        svg = svg.replace(sentinel, colour)
    return svg.strip()
