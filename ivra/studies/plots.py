"""Pictures of a study: figures with error bars, lines over a size, curves over thresholds."""

import math
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ivra.errors import IvraError, first_line
from ivra.explainers import ModuleExplainer
from ivra.studies.columns import COLUMNS
from ivra.studies.grid import Result
from ivra.studies.heatmaps import coefficient_maps
from ivra.studies.run import StudyResult
from ivra.studies.tables import TITLES, Row, Summary, Table, summary_of

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7A7A7A", "#000000")
"""Okabe and Ito's, which the colour-blind can tell apart; shapes differ too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STATIC_COLOUR, TRAINED_COLOUR = "#5B6B7B", "#D55E00"
INK, RULE = "#222222", "#D9D5CE"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.edgecolor": "#8A857C",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "ivra",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def write_plots(found: StudyResult, tables: Sequence[Table], output: Path) -> list[Path]:
    """A PNG and an SVG for every model; what was written."""
    draw: dict[str, Callable[[StudyResult, Table], Figure | None]] = {
        "points": points,
        "examples": points,  # and the heat maps below
        "lines": lines,
        "thresholds": thresholds,
    }
    written = []
    for number, table in enumerate(tables):
        with matplotlib.rc_context(STYLE):
            figure = draw[found.study.plot](found, table)
            if figure is None:
                continue
            stem = "figure" if len(tables) == 1 else f"figure-{number + 1}"
            written += [save(figure, output / f"{stem}.{kind}") for kind in ("png", "svg")]
        if found.study.plot == "examples":
            with matplotlib.rc_context(STYLE):
                figure = coefficient_maps(found, table.model, output, TITLES)
                if figure is not None:
                    stem = "coefficients" if len(tables) == 1 else f"coefficients-{number + 1}"
                    written += [save(figure, output / f"{stem}.{kind}") for kind in ("png", "svg")]
    return written


def save(figure: Figure, path: Path) -> Path:
    """Write a picture in one step; the same picture gives the same bytes."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    kind = path.suffix.removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    try:
        figure.savefig(temporary, format=kind, dpi=160, metadata=metadata, facecolor="white")
        os.replace(temporary, path)
    except OSError as error:
        raise IvraError(f"cannot write {path}: {error.strerror or first_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def points(found: StudyResult, table: Table) -> Figure | None:
    """A panel a column: every explainer's figure, its spread, and the seeds as faint dots."""
    if not table.rows:
        return None
    count, per_line = len(table.columns), min(3, len(table.columns))
    deep = math.ceil(count / per_line)
    height = deep * (0.29 * len(table.rows) + 0.85) + 0.45
    figure = Figure(figsize=(1.9 + 2.5 * per_line, height), layout="constrained")
    axes = figure.subplots(deep, per_line, squeeze=False, sharey=True)
    for place, ax in enumerate(axes.flat):
        if place >= count:
            ax.set_visible(False)
            continue
        for row, entry in enumerate(table.rows):
            _point(ax, entry, place, row, table.median)
        column = table.columns[place]
        ax.set_title(column.data, fontsize=9, loc="left")
        ax.set_xlabel(column.heading)
        ax.set_yticks(range(len(table.rows)), [row.name for row in table.rows])
        ax.set_ylim(len(table.rows) - 0.5, -0.5)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x", color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        static = sum(not row.trained for row in table.rows)
        if 0 < static < len(table.rows):
            ax.axhline(static - 0.5, color="#8A857C", linewidth=0.6, linestyle=(0, (3, 3)))
    _title(figure, table.caption)
    return figure


def _point(ax: Axes, entry: Row, column: int, row: int, median: bool) -> None:
    summary = entry.cells[column]
    colour = TRAINED_COLOUR if entry.trained else STATIC_COLOUR
    centre = summary.median if median else summary.mean
    if centre is None:
        ax.text(
            0.02, row, "undefined", transform=ax.get_yaxis_transform(), va="center", fontsize=7.5
        )
        return
    known = [value for value in summary.values if value is not None]
    if len(known) > 1:
        ax.plot(known, [row] * len(known), "o", color=colour, alpha=0.3, markersize=3, zorder=2)
        low, high = centre, centre
        if median and summary.low is not None and summary.high is not None:
            low, high = summary.low, summary.high
        elif summary.error is not None:
            low, high = centre - summary.error, centre + summary.error
        ax.errorbar(
            centre,
            row,
            xerr=[[centre - low], [high - centre]],
            color=colour,
            elinewidth=1.4,
            capsize=2.5,
            zorder=3,
        )
    shape = "s" if entry.trained else "o"
    ax.plot([centre], [row], shape, color=colour, markersize=6, zorder=4)


def lines(found: StudyResult, table: Table) -> Figure | None:
    """A panel a figure: every explainer's line over data sets whose names are numbers."""
    keys = list(dict.fromkeys(column.metric.key for column in table.columns))
    try:
        sizes = sorted({float(column.data) for column in table.columns})
    except ValueError:
        return points(found, table)
    figure = Figure(figsize=(1.2 + 4.6 * len(keys), 3.6), layout="constrained")
    for place, key in enumerate(keys):
        ax = figure.add_subplot(1, len(keys), place + 1)
        for number, row in enumerate(table.rows):
            cells = {
                float(column.data): cell
                for column, cell in zip(table.columns, row.cells, strict=True)
                if column.metric.key == key and cell.mean is not None
            }
            x = [size for size in sizes if size in cells]
            _line(ax, x, [cells[size] for size in x], number, row)
        ax.set_xlabel("N, tokens of a row")
        ax.set_ylabel(COLUMNS[key].meaning.rstrip("."))
        ax.set_xscale("log", base=2)
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        _scale_y(ax, [v for row in table.rows for c in row.cells for v in c.values if v])
        ax.grid(color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
    _legend_beside(figure)
    _title(figure, f"{table.title}: {table.model}")
    return figure


def _scale_y(ax: Axes, values: Sequence[float]) -> None:
    """From 0 where the values are of like size, logarithmic where they are not."""
    if values and max(values) > 10 * min(values) > 0:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)


def _line(ax: Axes, x: Sequence[float], over: Sequence[Summary], number: int, row: Row) -> None:
    """Means and standard errors, in the colour and shape of the row's number."""
    y = [math.nan if summary.mean is None else summary.mean for summary in over]
    ax.errorbar(
        list(x),
        y,
        yerr=[summary.error or 0.0 for summary in over],
        label=row.name,
        capsize=2,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[(number + number // len(COLOURS)) % len(MARKERS)],
        markersize=5,
        elinewidth=0.8,
        linewidth=1.8 if row.trained else 1.2,
        linestyle="-" if row.trained else "--",
    )


def _legend_beside(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right center", fontsize=8)


def thresholds(found: StudyResult, table: Table) -> Figure | None:
    """A panel a data set: the share of tokens whose score is above each threshold (IvRA fig. 7)."""
    names = list(dict.fromkeys(column.data for column in table.columns))
    figure = Figure(figsize=(1.4 + 3.8 * len(names), 3.6), layout="constrained")
    for place, data in enumerate(names):
        ax = figure.add_subplot(1, len(names), place + 1)
        for number, (row, curves) in enumerate(_curves(found, table, data)):
            if not curves:
                continue
            z = np.arange(1, len(curves[0]) + 1) / (len(curves[0]) + 1)
            over = [summary_of(values) for values in zip(*curves, strict=True)]
            apart = 0.006 * (number - len(table.rows) / 2)  # so that bars do not hide each other
            _line(ax, (z + apart).tolist(), over, number, row)
        ax.set_title(data, fontsize=9, loc="left")
        ax.set_xlabel("threshold z of the scaled score")
        ax.set_ylabel("share of tokens above z" if place == 0 else "")
        ax.set_ylim(bottom=0)
        ax.grid(color=RULE, linewidth=0.6)
        ax.set_axisbelow(True)
    _legend_beside(figure)
    _title(figure, table.caption)
    return figure


def _curves(found: StudyResult, table: Table, data: str) -> list[tuple[Row, list[list[float]]]]:
    """For each row of the table, a curve a seed."""
    study = found.study
    wanted: list[tuple[str, str | None, str | None]] = [
        *((name, None, None) for name in study.explainers),
        *((ModuleExplainer.name, m, c) for m in study.methods for c in study.criteria_of(m)),
    ]
    curves = []
    for row, (explainer, method, criterion) in zip(table.rows, wanted, strict=True):
        place = (table.model, data, method, criterion)
        own: list[list[float]] = []
        for cell in found.matrix.cells:
            result: Result | None = found.results.get(cell.cell.name)
            if (cell.model, cell.data, cell.method, cell.criterion) == place and result:
                curve = result["figures"].get(explainer, {}).get("important_by_threshold")
                own += [curve] if curve else []
        curves.append((row, own))
    return curves


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, fontsize=10, fontweight="bold", x=0.01, ha="left")
