"""The figures of an evaluation as tables: for the terminal and for the page."""

from collections.abc import Callable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from ivra.reports.page import METRICS, Metric, SummaryRow, Undefined

EXPLAINER_TITLES = {
    "ivra": "ivra (trained)",
    "untrained": "untrained module",
    "attention": "mean attention",
    "attention-last": "last-layer attention",
    "gradient-norm": "gradient norm",
    "input-x-gradient": "Input x Gradient",
    "integrated-gradients": "Integrated Gradients",
    "occlusion": "occlusion",
    "lime": "LIME",
    "kernel-shap": "KernelSHAP",
    "random": "random",
    "none": "no explanation",
    "trivial": "trivial (label leak)",
    "true": "true rationales",
}


def summary_rows(result: Mapping[str, object]) -> tuple[SummaryRow, ...]:
    """One row an explainer or control, from what ``evaluate`` returned, also long ago."""
    figures: Mapping[str, Mapping[str, object]] = result["figures"]  # type: ignore[assignment]
    undefined: Mapping[str, str] = result["undefined"]  # type: ignore[assignment]
    rows = []
    for name, values in figures.items():
        shown: dict[str, float | Undefined] = {}
        for metric in METRICS:
            value = values.get(metric.key)
            if isinstance(value, float):
                shown[metric.key] = value
            elif metric.key in values:
                shown[metric.key] = Undefined(undefined.get(metric.key, "not defined here"))
        if not shown:
            continue
        if set(shown) == {"sim"}:  # a control of the students, or sim alone was measured
            shown |= {m.key: Undefined() for m in METRICS if m.key not in ("accuracy", "sim")}
        bounds: Mapping[str, Sequence[float]] = values.get("intervals", {})  # type: ignore[assignment]
        intervals = {key: (low, high) for key, (low, high) in bounds.items()}
        rows.append(SummaryRow(EXPLAINER_TITLES.get(name, name), shown, intervals=intervals))
    return tuple(rows)


def groups(rows: Sequence[SummaryRow], metrics: Sequence[Metric]) -> dict[str, list[Metric]]:
    """The metrics that some row has a figure of (or is said to lack one), by their table.

    A metric that stands in the first table makes no further table by itself.
    """
    found: dict[str, list[Metric]] = {}
    for metric in metrics:
        values = [row.values.get(metric.key) for row in rows]
        if any(isinstance(v, float) or (isinstance(v, Undefined) and v.reason) for v in values):
            found.setdefault(metric.group, []).append(metric)
    first = {metric.key for metric in found.get("", [])}
    return {
        group: columns
        for group, columns in found.items()
        if not group or any(metric.key not in first for metric in columns)
    }


def rows_of(rows: Sequence[SummaryRow], metrics: Sequence[Metric]) -> list[SummaryRow]:
    """The rows that have something to say of ``metrics``."""
    return [
        row
        for row in rows
        if any(v != Undefined() for m in metrics if (v := row.values.get(m.key)) is not None)
    ]


def results_tables(result: Mapping[str, object]) -> list[Table]:
    """Explainers by metrics, the main figures first.

    The best of a column is bold, an undefined figure a dash. Below a figure stands half the width
    of its 95 % interval; the interval itself, which need not be symmetric, is in the result.
    """
    rows = summary_rows(result)
    tables = []
    for group, metrics in groups(rows, METRICS).items():
        title = group or None
        table = Table(
            box=None, pad_edge=False, header_style="dim", title=title, title_justify="left"
        )
        table.add_column("explanation")
        for metric in metrics:
            table.add_column(_heading(metric), justify="right")
        best = {metric.key: _best(metric, rows) for metric in metrics}
        for row in rows_of(rows, metrics):
            cells = [_cell(row, metric, best[metric.key]) for metric in metrics]
            table.add_row(escape(row.name), *cells)
        tables.append(table)
    return tables


def result_lines(result: Mapping[str, object]) -> list[str]:
    """What stands below the tables: the model's own accuracy, what its students' differences are
    worth, and what the small figures mean."""
    lines = []
    accuracy = result.get("accuracy")
    if isinstance(accuracy, Mapping):
        lines.append(_accuracy_line(accuracy))
        lines += _plain_line(accuracy, _accuracy_line)
    answers = result.get("answers")
    if isinstance(answers, Mapping):
        lines.append(_answers_line(answers))
        lines += _plain_line(answers, _answers_line)
    lines += _unmeasured_lines(result)
    tests: Sequence[Mapping[str, object]] = result.get("tests", [])  # type: ignore[assignment]
    found = [_test_text(test) for test in tests if test["first"] == "ivra"]
    if found:
        lines.append(f"SIM of ivra: {', '.join(found)}")
    if any(row.intervals for row in summary_rows(result)):
        lines.append("[dim]± half of a 95 % interval over rows; the ends are in the file[/dim]")
    return lines


def _accuracy_line(figures: Mapping[str, object]) -> str:
    return f"accuracy {figures['accuracy']:.3f}, macro F1 {figures['macro_f1']:.3f}"


def _answers_line(figures: Mapping[str, object]) -> str:
    return f"exact match {figures['exact_match']:.3f}, F1 {figures['f1']:.3f}"


def _plain_line(
    figures: Mapping[str, object], line: Callable[[Mapping[str, object]], str]
) -> list[str]:
    plain = figures.get("plain")
    if not isinstance(plain, Mapping) or not plain.get("difference"):
        return []
    return [f"the plain model: {line(plain)} (p = {plain['p_value']:.3g})"]


def _unmeasured_lines(result: Mapping[str, object]) -> list[str]:
    """What has no column at all, and why."""
    figures: Mapping[str, Mapping[str, object]] = result["figures"]  # type: ignore[assignment]
    undefined: Mapping[str, str] = result["undefined"]  # type: ignore[assignment]
    there = {key for values in figures.values() for key in values}
    return [f"{key} is not measured: {why}" for key, why in undefined.items() if key not in there]


def _test_text(test: Mapping[str, object]) -> str:
    other = str(test["second"])
    title = EXPLAINER_TITLES.get(other, other)
    return f"{test['difference']:+.3f} against {title} (p = {test['p_value']:.3g})"


def _heading(metric: Metric) -> str:
    arrow = {"higher": " ↑", "lower": " ↓", None: ""}[metric.better]
    return metric.title + arrow


def _best(metric: Metric, rows: Sequence[SummaryRow]) -> str | None:
    values = [v for row in rows if isinstance(v := row.values.get(metric.key), float)]
    if not values or metric.better is None:
        return None
    return f"{max(values) if metric.better == 'higher' else min(values):.{metric.digits}f}"


def _cell(row: SummaryRow, metric: Metric, best: str | None) -> str:
    value = row.values.get(metric.key)
    if not isinstance(value, float):
        return "–"
    text = f"{value:.{metric.digits}f}"
    shown = f"[bold]{text}[/bold]" if text == best else text
    if metric.key not in row.intervals:
        return shown
    low, high = row.intervals[metric.key]
    half = f"{(high - low) / 2:.{metric.digits}f}"
    return f"{shown}\n[dim]±{half.removeprefix('0')}[/dim]"
