"""Tables of a study: mean and standard error over seeds, the best and the second of a column."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ivra.explainers import ModuleExplainer
from ivra.reports import Metric
from ivra.reports.results import EXPLAINER_TITLES
from ivra.studies.columns import OF_MODEL
from ivra.studies.grid import Result, figure
from ivra.studies.run import StudyResult

DASH = "\N{EN DASH}"
ARROWS = {"higher": "\N{UPWARDS ARROW}", "lower": "\N{DOWNWARDS ARROW}", None: ""}
TITLES = {
    **EXPLAINER_TITLES,
    "smat": "SMaT",
    "ivra-softmax": "IvRA-softmax",
    "ivra-sparsemax": "IvRA-sparsemax",
    "ivra-value": "ivra with values",
    "ivra-fidelity": "ivra for fidelity",
}
"""Names as tables print them; others stand as they are."""


@dataclass(frozen=True)
class Summary:
    """A figure over seeds; ``None`` where no seed defines it.

    ``error`` is the standard error of the mean, ``s / sqrt(n)`` with ``s`` the standard deviation
    of ``n - 1`` degrees of freedom; ``None`` for a single seed. ``low`` and ``high`` are the
    first and third quartile (linear interpolation). ``values`` has an entry a seed.
    """

    values: tuple[float | None, ...]
    mean: float | None = None
    error: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def count(self) -> int:
        """Seeds that define the figure."""
        return sum(value is not None for value in self.values)


def summary_of(values: Iterable[float | None]) -> Summary:
    """Mean, standard error, median and quartiles of the values that are defined and finite."""
    given = tuple(v if v is not None and math.isfinite(v) else None for v in values)
    known = np.array([value for value in given if value is not None], dtype=np.float64)
    if not len(known):
        return Summary(given)
    error = float(known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    low, median, high = (float(q) for q in np.quantile(known, (0.25, 0.5, 0.75)))
    return Summary(given, float(known.mean()), error, median, low, high)


@dataclass(frozen=True)
class Column:
    """A figure on a data set."""

    data: str
    metric: Metric

    @property
    def heading(self) -> str:
        """``COMP ↑``."""
        return f"{self.metric.title} {ARROWS[self.metric.better]}".rstrip()


@dataclass(frozen=True)
class Row:
    """An explainer or a trained method, and its figures, one a column."""

    name: str
    trained: bool
    cells: tuple[Summary, ...]


@dataclass(frozen=True)
class Table:
    """The figures of one model: explainers by data sets and figures."""

    title: str
    model: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: int
    median: bool = False
    one_model: bool = False

    @property
    def caption(self) -> str:
        """What the table is of."""
        data = ", ".join(dict.fromkeys(column.data for column in self.columns))
        return f"{self.title}: {self.model}, {data}"

    @property
    def headings(self) -> list[str]:
        """``COMP ↑`` for every column, with its data set where there are several."""
        several = len({column.data for column in self.columns}) > 1
        return [f"{c.data}: {c.heading}" if several else c.heading for c in self.columns]

    def printed(self, row: int, column: int) -> tuple[str, str] | None:
        """The figure and its spread as printed, or ``None`` where it is undefined."""
        summary = self.rows[row].cells[column]
        digits = self.columns[column].metric.digits
        centre = summary.median if self.median else summary.mean
        if centre is None:
            return None
        shown = f"{round(centre, digits) + 0.0:.{digits}f}"
        if summary.error is None:
            return shown, ""
        if self.median:
            assert summary.low is not None
            assert summary.high is not None
            return shown, f"{summary.low:.{digits}f} to {summary.high:.{digits}f}"
        return shown, f"{summary.error:.{digits}f}"

    def places(self, column: int) -> tuple[int | None, ...]:
        """1 for the best of a column, 2 for the second, ``None`` for the others.

        Judged as printed, so that figures that look alike are treated alike; a column whose
        figures all look alike, or of which neither way is better, has neither.
        """
        better = self.columns[column].metric.better
        shown = [self.printed(row, column) for row in range(len(self.rows))]
        order = sorted({float(s[0]) for s in shown if s is not None}, reverse=better == "higher")
        if better is None or len(order) < 2:
            return (None,) * len(shown)
        ranks = {order[0]: 1, order[1]: 2}
        return tuple(None if s is None else ranks.get(float(s[0])) for s in shown)


def tables_of(found: StudyResult, median: bool = False) -> list[Table]:
    """One table a model: static explainers first, then each method for each criterion."""
    study, cells = found.study, found.matrix.cells
    tables = []
    for model in study.models:
        names = list(dict.fromkeys(cell.data for cell in cells if cell.model == model))
        metrics = found.matrix.columns
        columns = tuple(Column(data, metric) for data in names for metric in metrics)
        rows = [
            Row(TITLES.get(name, name), False, _cells(found, model, columns, name, None, None))
            for name in study.explainers
        ]
        for method in study.methods:
            for criterion in study.criteria_of(method):
                label = TITLES.get(method, method)
                if len(study.criteria) > 1:
                    label = f"{label} ({criterion})"
                own = _cells(found, model, columns, ModuleExplainer.name, method, criterion)
                rows.append(Row(label, True, own))
        title = study.title or study.name
        tables.append(
            Table(
                title,
                model,
                columns,
                tuple(rows),
                len(study.seeds),
                median,
                study.model_seed is not None,
            )
        )
    return tables


def _cells(
    found: StudyResult,
    model: str,
    columns: Sequence[Column],
    explainer: str,
    method: str | None,
    criterion: str | None,
) -> tuple[Summary, ...]:
    place = (model, method, criterion)
    cells = [c for c in found.matrix.cells if (c.model, c.method, c.criterion) == place]
    return tuple(
        summary_of(
            value_of(found.results.get(c.cell.name), explainer, column.metric.key)
            for c in cells
            if c.data == column.data
        )
        for column in columns
    )


def value_of(result: Result | None, explainer: str, key: str) -> float | None:
    """One figure of a cell; ``None`` without a result, or where it is undefined."""
    if result is None:
        return None
    if key == "step_seconds":
        seconds: float | None = result["cell"]["step_seconds"]
        return seconds if explainer == ModuleExplainer.name else None
    if key in OF_MODEL:
        own: Mapping[str, float] = result.get("accuracy", {})
        return own.get(key)
    return figure(result, explainer, key)


def markdown_table(table: Table) -> str:
    """The table in Markdown: the best bold, the second underlined, undefined a dash."""
    names = [_markdown(name) for name in table.headings]
    lines = _markdown_row([""], *names), _markdown_row(["---"], *("---:" for _ in names))
    body = [
        _markdown_row([_markdown(row.name)], *cells)
        for row, cells in zip(table.rows, _shown(table, _MARKDOWN), strict=True)
    ]
    return "\n".join([f"### {_markdown(table.caption)}", "", *lines, *body, "", _note(table), ""])


def _note(table: Table) -> str:
    text = "Median (first to third quartile)" if table.median else "Mean ± standard error"
    if table.seeds == 1:
        return "One seed. Best bold, second underlined."
    missing = [
        f"{row.name}, {column.data} {column.metric.title}: {summary.count} of {table.seeds}"
        for row in table.rows
        for column, summary in zip(table.columns, row.cells, strict=True)
        if 0 < summary.count < table.seeds and (row.trained or not table.one_model)
    ]
    gaps = f" Over fewer seeds: {'; '.join(missing)}." if missing else ""
    model = " of training on one fine-tuned model" if table.one_model else ""
    return f"{text} over {table.seeds} seeds{model}. Best bold, second underlined.{gaps}"


@dataclass(frozen=True)
class _Format:
    """How a format writes a number, its spread, the best, the second and nothing."""

    best: str
    second: str
    spread: str
    quartiles: str
    dash: str


_MARKDOWN = _Format("**{}**", "<u>{}</u>", "{} ± {}", "{} ({})", DASH)
_LATEX = _Format(
    r"\textbf{{{}}}",
    r"\underline{{{}}}",
    r"{} {{\scriptsize $\pm$ {}}}",
    r"{} {{\scriptsize ({})}}",
    "--",
)


def _shown(table: Table, form: _Format) -> list[list[str]]:
    places = [table.places(column) for column in range(len(table.columns))]
    return [
        [_cell(table.printed(r, c), places[c][r], table.median, form) for c in range(len(places))]
        for r in range(len(table.rows))
    ]


def _cell(printed: tuple[str, str] | None, place: int | None, median: bool, form: _Format) -> str:
    if printed is None:
        return form.dash
    number, spread = printed
    if form is _LATEX:
        number = number.replace("-", "$-$")
        spread = spread.replace("-", "$-$")
    marked = {1: form.best, 2: form.second, None: "{}"}[place].format(number)
    if not spread:
        return marked
    return (form.quartiles if median else form.spread).format(marked, spread)


def _markdown_row(first: Sequence[str], *cells: str) -> str:
    return "| " + " | ".join((*first, *cells)) + " |"


def _markdown(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "±": r"$\pm$",
    DASH: "--",
}


def latex(text: str) -> str:
    """``text`` as LaTeX prints it, whatever it holds."""
    return "".join(_LATEX_SPECIAL.get(character, character) for character in text)


def latex_table(table: Table) -> str:
    """The table in LaTeX, for the package booktabs; data sets span their figures."""
    names = list(dict.fromkeys(column.data for column in table.columns))
    width = len(table.columns) // len(names)
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.caption)}. {latex(_note(table))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
    ]
    if len(names) > 1:
        over = " & ".join(rf"\multicolumn{{{width}}}{{c}}{{{latex(name)}}}" for name in names)
        rules = " ".join(
            rf"\cmidrule(lr){{{2 + i * width}-{1 + (i + 1) * width}}}" for i in range(len(names))
        )
        lines += [rf" & {over} \\", rules]
    lines.append(" & ".join(["", *(latex(c.heading) for c in table.columns)]) + r" \\")
    lines.append(r"\midrule")
    trained_before = False
    for row, cells in zip(table.rows, _shown(table, _LATEX), strict=True):
        if row.trained and not trained_before and row is not table.rows[0]:
            lines.append(r"\midrule")
        trained_before = trained_before or row.trained
        lines.append(" & ".join([latex(row.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


CSV_HEADER = (
    "model",
    "explanation",
    "data",
    "figure",
    "better",
    "mean",
    "standard_error",
    "median",
    "first_quartile",
    "third_quartile",
    "seeds",
    "place",
    "values",
)


def csv_tables(tables: Sequence[Table]) -> str:
    """All tables as CSV, a line a figure, with full precision; empty where undefined."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for table in tables:
        for c, column in enumerate(table.columns):
            places = table.places(c)
            for r, row in enumerate(table.rows):
                s = row.cells[c]
                numbers = (s.mean, s.error, s.median, s.low, s.high)
                writer.writerow(
                    [
                        *(table.model, row.name, column.data, column.metric.key),
                        column.metric.better or "",
                        *("" if number is None else repr(number) for number in numbers),
                        s.count,
                        places[r] or "",
                        " ".join("-" if v is None else repr(v) for v in s.values),
                    ]
                )
    return target.getvalue()
