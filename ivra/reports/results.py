"""The figures of an evaluation as a table: for the terminal and for the page."""

from collections.abc import Mapping

from rich.table import Table

from ivra.reports.page import METRICS, Metric, SummaryRow, Undefined

EXPLAINER_TITLES = {
    "ivra": "ivra (trained)",
    "untrained": "untrained module",
    "attention": "mean attention",
    "attention-last": "last-layer attention",
    "input-x-gradient": "Input x Gradient",
    "random": "random",
    "none": "no explanation",
}


def summary_rows(result: Mapping[str, object]) -> tuple[SummaryRow, ...]:
    """One row an explainer, from what ``evaluate`` returned."""
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
            elif name == "none" and metric.key != "accuracy":
                shown[metric.key] = Undefined("the control has no explanation")
        if shown:
            rows.append(SummaryRow(EXPLAINER_TITLES.get(name, name), shown))
    return tuple(rows)


def results_table(result: Mapping[str, object]) -> Table:
    """Explainers by metrics; the best of a column is bold, an undefined figure a dash."""
    rows = summary_rows(result)
    metrics = [m for m in METRICS if any(m.key in row.values for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("explanation")
    for metric in metrics:
        arrow = "↑" if metric.better == "higher" else "↓"
        table.add_column(f"{metric.title} {arrow}", justify="right")
    best = {metric.key: _best(metric, rows) for metric in metrics}
    for row in rows:
        cells = [_cell(row.values.get(metric.key), metric, best[metric.key]) for metric in metrics]
        table.add_row(row.name, *cells)
    return table


def _best(metric: Metric, rows: tuple[SummaryRow, ...]) -> str | None:
    values = [v for row in rows if isinstance(v := row.values.get(metric.key), float)]
    if not values:
        return None
    return f"{max(values) if metric.better == 'higher' else min(values):.{metric.digits}f}"


def _cell(value: float | Undefined | None, metric: Metric, best: str | None) -> str:
    if not isinstance(value, float):
        return "–"
    text = f"{value:.{metric.digits}f}"
    return f"[bold]{text}[/bold]" if text == best else text
