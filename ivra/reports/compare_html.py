"""Comparisons as one HTML file that needs nothing else."""

from importlib import resources
from pathlib import Path

import jinja2

from ivra.reports.compare import ComparePage, cards, printed
from ivra.reports.explained import percent
from ivra.storage import write_text_atomic

TEMPLATE = "compare.html.j2"


def write_compare_html(path: str | Path, page: ComparePage) -> None:
    """Write :func:`compare_html` to ``path`` in one step; :class:`IvraError` if it cannot be."""
    write_text_atomic(path, compare_html(page))


def compare_html(page: ComparePage) -> str:
    """``page`` as HTML: self-contained, no scripts, everything from outside escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("ivra.reports").joinpath("templates", TEMPLATE)
    shown = cards(page.compared, page.titles)
    html = environment.from_string(source.read_text(encoding="utf-8")).render(
        page=page,
        cards=shown,
        annotated=any(card.row.rationale is not None for card in shown),
        signed=any(
            tone.tone < 0 for card in shown for line in card.lines for t in line.texts for tone in t
        ),
        printed=printed,
        percent=percent,
        faint=FAINT,
    )
    return html.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


FAINT = 0.03
"""Tones up to here have no colour."""
