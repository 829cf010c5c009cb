"""A report as one HTML file that needs nothing else."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from ivra.reports.curves import curves
from ivra.reports.explained import ExplainedRow, Piece, by_example, cut, percent, top_pieces
from ivra.reports.page import Metric, Page, SummaryRow, Undefined
from ivra.reports.results import groups, rows_of
from ivra.storage import write_text_atomic

TEMPLATE = "report.html.j2"
UNDEFINED = "\N{EN DASH}"
TOP = 3
"""How many of the most salient tokens are also named in words under each text."""
CLASSES = 4
"""How many class probabilities a row lists."""


@dataclass(frozen=True)
class Cell:
    """A number of the summary table as it is printed; ``reason`` where it is undefined.

    ``interval`` is its 95 % interval, or empty.
    """

    text: str
    best: bool = False
    reason: str = ""
    interval: str = ""


@dataclass(frozen=True)
class SummaryTable:
    """One table of figures: explainers by the metrics of one group."""

    title: str
    metrics: tuple[Metric, ...]
    rows: tuple[tuple[SummaryRow, list[Cell]], ...]


@dataclass(frozen=True)
class Explanation:
    """One explainer's view of an example: its texts in pieces, and its top tokens."""

    row: ExplainedRow
    texts: tuple[tuple[Piece, ...], ...]
    top: tuple[Piece, ...]


@dataclass(frozen=True)
class Example:
    """One card: the explanations of one example, and what the model says of it.

    ``agreed`` tells whether all explanations speak of the same prediction, which then stands
    once at the head of the card.
    """

    row: ExplainedRow
    explanations: tuple[Explanation, ...]
    others: tuple[tuple[str, float], ...]
    agreed: bool


def write_html(path: str | Path, page: Page) -> None:
    """Write :func:`page_html` to ``path`` in one step; :class:`IvraError` if it cannot be."""
    write_text_atomic(path, page_html(page))


def page_html(page: Page) -> str:
    """``page`` as HTML: self-contained, no scripts, everything from outside escaped.

    Unpaired surrogates, which no file can hold, become the replacement character.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("ivra.reports").joinpath("templates", TEMPLATE)
    template = environment.from_string(source.read_text(encoding="utf-8"))
    tables = summary_tables(page.summary, page.metrics)
    cells = [cell for table in tables for _, row in table.rows for cell in row]
    reasons = dict.fromkeys(cell.reason for cell in cells if cell.reason)
    html = template.render(
        page=page,
        tables=tables,
        intervals=any(cell.interval for cell in cells),
        reasons=list(reasons),
        curves=[(curve, Markup(curve.svg)) for curve in curves(page.log)],
        examples=[_example(group) for group in by_example(page.rows)],
        annotated=any(row.rationale is not None for row in page.rows),
        answered=any(row.answer is not None for row in page.rows),
        config=[(key, _shown(value)) for key, value in page.config.items()],
        number=_number,
        percent=percent,
    )
    return html.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def summary_tables(
    summary: Sequence[SummaryRow], metrics: Sequence[Metric]
) -> tuple[SummaryTable, ...]:
    """One table a group of metrics, of the explainers and metrics that have something to say."""
    tables = []
    for title, columns in groups(summary, metrics).items():
        rows = rows_of(summary, columns)
        cells = summary_cells(rows, columns)
        paired = tuple(zip(rows, cells, strict=True))
        tables.append(SummaryTable(title, tuple(columns), paired))
    return tuple(tables)


def summary_cells(summary: Sequence[SummaryRow], metrics: Sequence[Metric]) -> list[list[Cell]]:
    """The printed numbers, a list a row.

    The best of a column is chosen among the numbers as printed, ties included; a column whose
    numbers are all printed alike has no best.
    """
    columns = [_column(summary, metric) for metric in metrics]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in summary]


def _column(summary: Sequence[SummaryRow], metric: Metric) -> list[Cell]:
    printed = [_printed(row.values.get(metric.key), metric) for row in summary]
    numbers = {float(value) for value in printed if isinstance(value, str)}
    best = None
    if len(numbers) > 1 and metric.better is not None:
        best = max(numbers) if metric.better == "higher" else min(numbers)
    return [
        Cell(UNDEFINED, reason=_reason(row, metric, value))
        if isinstance(value, Undefined)
        else Cell(_signed(value), best=float(value) == best, interval=_interval(row, metric))
        for row, value in zip(summary, printed, strict=True)
    ]


def _reason(row: SummaryRow, metric: Metric, undefined: Undefined) -> str:
    return f"{metric.title} of {row.name}: {undefined.reason}" if undefined.reason else ""


def _interval(row: SummaryRow, metric: Metric) -> str:
    if metric.key not in row.intervals:
        return ""
    low, high = (_printed(bound, metric) for bound in row.intervals[metric.key])
    return f"{_signed(str(low))} to {_signed(str(high))}"


def _signed(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")


def _printed(value: float | Undefined | None, metric: Metric) -> str | Undefined:
    if value is None:
        return Undefined("not measured.")
    if isinstance(value, Undefined):
        return value
    if not math.isfinite(value):
        return Undefined(f"the value is {value}.")
    return f"{round(value, metric.digits) + 0.0:.{metric.digits}f}"


def _example(group: Sequence[ExplainedRow]) -> Example:
    first = group[0]
    ranked = sorted(first.probabilities.items(), key=lambda pair: -pair[1])
    return Example(
        row=first,
        explanations=tuple(Explanation(row, cut(row), top_pieces(row, TOP)) for row in group),
        others=tuple(pair for pair in ranked if pair[0] != first.prediction)[: CLASSES - 1],
        agreed=all(
            (r.prediction, r.confidence) == (first.prediction, first.confidence) for r in group
        ),
    )


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _number(value: float) -> str:
    """Two figures that matter: 0.31, 0.042, 0.0007; 0 for nothing; a real minus sign."""
    if value == 0:
        return "0"
    text = f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text
