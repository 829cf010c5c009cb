"""What a reader sees: explained rows in a terminal, as an HTML page, as JSON.

Plain data in, text out: nothing here knows torch, a model or a batch.
"""

from ivra.reports.compare import Compared, ComparePage, compare_json
from ivra.reports.compare_html import write_compare_html
from ivra.reports.compare_terminal import RenderedComparison, render_comparison
from ivra.reports.eraser import (
    EraserDocument,
    EraserInstance,
    EraserReduced,
    eraser_json,
    write_eraser,
)
from ivra.reports.explained import ExplainedRow, Piece, by_example, cut, percent, top_pieces
from ivra.reports.export import explain_json
from ivra.reports.html import write_html
from ivra.reports.page import METRICS, LogRecord, Metric, Page, SummaryRow, Undefined
from ivra.reports.results import result_lines, results_tables, summary_rows
from ivra.reports.terminal import RenderedRows, render_rows

__all__ = [
    "METRICS",
    "ComparePage",
    "Compared",
    "EraserDocument",
    "EraserInstance",
    "EraserReduced",
    "ExplainedRow",
    "LogRecord",
    "Metric",
    "Page",
    "Piece",
    "RenderedComparison",
    "RenderedRows",
    "SummaryRow",
    "Undefined",
    "by_example",
    "compare_json",
    "cut",
    "eraser_json",
    "explain_json",
    "percent",
    "render_comparison",
    "render_rows",
    "result_lines",
    "results_tables",
    "summary_rows",
    "top_pieces",
    "write_compare_html",
    "write_eraser",
    "write_html",
]
