"""Pictures of a sweep: the heat map of ARG, and the front of the criteria."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ivra.studies.gains import Gain, Point, Sweep, metric_of
from ivra.studies.pareto import pareto_front
from ivra.studies.plots import COLOURS, INK, MARKERS, RULE
from ivra.studies.tables import ARROWS

COLOUR_MAP = "PuOr"
"""Orange for a loss, purple for a gain: the colour-blind can tell them apart."""
SMALLEST, LARGEST = 0.1, 1.0
"""Of the ARG at which the colour is at its end."""
LEGEND_WIDTH = 1.8
"""Inches that an entry of the legend takes."""


def percent(value: float) -> str:
    """In percent without the sign for it: ``+3`` for 0.03, ``0`` for what rounds to it."""
    shown = f"{100 * value:+.0f}"
    return "0" if shown in ("+0", "-0") else shown.replace("-", "\N{MINUS SIGN}")


def heat_map(sweep: Sweep) -> Figure:
    """ARG of every subset (rows) against each criterion alone (columns), a panel a combiner.

    Cells whose criterion is trained for are framed. The colour ends at the ninth decile of the
    sizes, within 10 and 100 %; what is undefined is hatched.
    """
    rows = sweep.subsets()
    sizes = [abs(g.arg.value) for g in sweep.gains if g.arg.value is not None]
    end = float(np.quantile(sizes, 0.9)) if sizes else SMALLEST
    norm = TwoSlopeNorm(0.0, -min(max(end, SMALLEST), LARGEST), min(max(end, SMALLEST), LARGEST))
    wide = 0.72 * len(sweep.criteria) + 0.25
    size = (2.3 + wide * len(sweep.methods) + 0.9, 1.25 + 0.34 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(sweep.methods), squeeze=False, sharey=True)[0]
    image = None
    for ax, method in zip(axes, sweep.methods, strict=True):
        values = np.full((len(rows), len(sweep.criteria)), np.nan)
        for (y, subset), (x, criterion) in itertools.product(
            enumerate(rows), enumerate(sweep.criteria)
        ):
            gain = sweep.gain(method, subset, criterion)
            if gain is not None:
                values[y, x] = np.nan if gain.arg.value is None else gain.arg.value
                _cell(ax, x, y, gain, norm)
        image = ax.imshow(values, cmap=COLOUR_MAP, norm=norm, aspect="auto")
        _frame(ax, sweep, rows, method)
    assert image is not None
    bar = figure.colorbar(image, ax=list(axes), shrink=0.6, extend="both", pad=0.02)
    bar.set_label("ARG against the criterion alone, %")
    bar.ax.yaxis.set_major_formatter(lambda value, place: percent(value))
    bar.outline.set_visible(False)
    title = f"What mixing costs or pays: {sweep.model}, {', '.join(sweep.points)}"
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _cell(ax: Axes, x: int, y: int, gain: Gain, norm: TwoSlopeNorm) -> None:
    value = gain.arg.value
    if value is None:
        box = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////", edgecolor="#B9B4AB")
        box.set_linewidth(0)
        ax.add_patch(box)
    dark = value is not None and abs(float(norm(value)) - 0.5) > 0.36
    ax.text(
        x,
        y,
        "undef." if value is None else percent(value),
        ha="center",
        va="center",
        color="white" if dark else INK,
        fontsize=8.5 if gain.member else 7.5,
        fontweight="bold" if gain.member else "normal",
    )
    if gain.member:
        box = Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, zorder=3)
        box.set_linewidth(0.9)
        ax.add_patch(box)


def _frame(ax: Axes, sweep: Sweep, rows: Sequence[tuple[str, ...]], method: str) -> None:
    ax.set_title(method, fontsize=9, loc="left", pad=18)
    headings = [f"{c} {ARROWS[metric_of(c).better]}" for c in sweep.criteria]
    ax.set_xticks(range(len(headings)), headings)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(rows)), [" + ".join(subset) for subset in rows])
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    for y in range(1, len(rows)):
        if len(rows[y]) != len(rows[y - 1]):
            ax.axhline(y - 0.5, color="white", linewidth=4)


def front_panels(sweep: Sweep, data: str) -> Figure:
    """A panel a pair of criteria: every mixture's figures, and the front of the two.

    Better is up and right: axes of figures where lower is better run backwards.
    """
    pairs = list(itertools.combinations(sweep.criteria, 2))
    columns = min(3, max(1, len(pairs)))
    deep = math.ceil(len(pairs) / columns)
    size = (1.7 + 2.7 * columns, 0.6 + 2.4 * max(1, deep))
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(max(1, deep), columns, squeeze=False).flat)
    for ax, pair in zip(axes, pairs, strict=False):
        _front(ax, sweep, sweep.points[data], pair)
    for ax in axes[len(pairs) :]:
        ax.set_visible(False)
    if pairs:
        handles, labels = axes[0].get_legend_handles_labels()
        across = max(1, int(size[0] / LEGEND_WIDTH))
        figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=across)
    title = f"The front of the criteria: {sweep.model}, {data}\nbetter is up and right"
    figure.suptitle(title, fontsize=10, fontweight="bold", x=0.01, ha="left")
    return figure


def _front(ax: Axes, sweep: Sweep, points: Sequence[Point], pair: tuple[str, str]) -> None:
    for number, method in enumerate(sweep.methods):
        for alone in (True, False):
            chosen = [
                (p.figures[pair[0]], p.figures[pair[1]], p)
                for p in points
                if p.method == method and (len(p.criteria) == 1) == alone
            ]
            known = [(x, y, p) for x, y, p in chosen if x is not None and y is not None]
            if alone and number:
                continue
            colour = INK if alone else COLOURS[number % len(COLOURS)]
            ax.plot(
                [x for x, _, _ in known],
                [y for _, y, _ in known],
                "x" if alone else MARKERS[number % len(MARKERS)],
                color=colour,
                markersize=6 if alone else 4.5,
                alpha=1.0 if alone else 0.75,
                linestyle="",
                label="one criterion" if alone else f"mixed by {method}",
                zorder=3,
            )
            if alone:
                _name(ax, [((x, y), point.criteria[0]) for x, y, point in known])
    line = front_of_two(points, pair)
    ax.plot(*zip(*line, strict=True), color="#8A857C", linewidth=1.2, zorder=1) if line else None
    for axis, set_label, criterion in (
        (ax.xaxis, ax.set_xlabel, pair[0]),
        (ax.yaxis, ax.set_ylabel, pair[1]),
    ):
        metric = metric_of(criterion)
        set_label(f"{metric.title} {ARROWS[metric.better]}")
        axis.set_inverted(metric.better == "lower")
        axis.set_major_locator(MaxNLocator(4))
    ax.grid(color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.margins(0.14)


def _name(ax: Axes, points: Sequence[tuple[tuple[float, float], str]]) -> None:
    """Names beside points; those that stand together share one."""
    places = np.array([place for place, _ in points]).reshape(-1, 2)
    spans = np.ptp(places, axis=0) if len(points) else places
    together: list[tuple[tuple[float, float], list[str]]] = []
    for place, name in points:
        for other, names in together:
            if bool((np.abs(np.subtract(other, place)) <= 0.08 * spans).all()):
                names.append(name)
                break
        else:
            together.append((place, [name]))
    for place, names in together:
        ax.annotate(", ".join(names), place, (5, 4), textcoords="offset points", fontsize=7.5)


def front_of_two(points: Sequence[Point], pair: tuple[str, str]) -> list[tuple[float, float]]:
    """The points that none is better than in these two criteria, in the order of the first."""
    signs = [1 if metric_of(c).better == "higher" else -1 for c in pair]
    known = [(p.figures[pair[0]], p.figures[pair[1]]) for p in points]
    places = [(x, y) for x, y in known if x is not None and y is not None]
    front = pareto_front([[signs[0] * x, signs[1] * y] for x, y in places])
    return sorted({place for place, on in zip(places, front, strict=True) if on})
