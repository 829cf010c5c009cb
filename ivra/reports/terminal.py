"""Explained rows in a terminal."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.text import Text

from ivra.reports.explained import ExplainedRow, Piece, by_example, cut, percent

PALE = (255, 241, 224)
DEEP = (249, 128, 29)
FAINT = 0.04
"""Shares of the row's maximum up to here are left uncoloured."""
STRONG = 0.5
"""Shares from here on are bold, and in brackets where the terminal has no colour."""
BAR = 20


@dataclass(frozen=True)
class RenderedRows:
    """A rich renderable; it asks the terminal for colour and characters when it is printed."""

    rows: tuple[ExplainedRow, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        styled = console.color_system is not None
        colour = styled and not console.no_color
        for number, group in enumerate(by_example(self.rows)):
            if number:
                yield Text()
            for index, row in enumerate(group):
                if index == 0 or _claim(row) != _claim(group[index - 1]):
                    yield head(row, options.ascii_only)
                if row.explainer:
                    yield Text(printable(row.explainer), style="dim")
                for pieces in cut(row):
                    yield Padding(_body(pieces, colour, styled), (0, 0, 0, 2))
        if self.rows:
            yield Text()
            yield _legend(colour, styled, any(row.rationale is not None for row in self.rows))


def render_rows(rows: Sequence[ExplainedRow]) -> RenderedRows:
    """``rows`` for ``rich.print``: prediction, confidence and label, then the coloured text.

    The colour of a token is its share of the row's maximum. It is dark on a light ground
    whatever the terminal's own colours; without colour the strongest tokens are bold and in
    brackets. Human or planted evidence is underlined, or stands between underscores where the
    output has no styles at all (a file, a pipe). Control characters in the text are shown
    as a replacement character, so that no text can command the terminal.
    """
    return RenderedRows(tuple(rows))


def _claim(row: ExplainedRow) -> tuple[str, float]:
    return row.prediction, row.confidence


def head(row: ExplainedRow, ascii_only: bool) -> Text:
    """What the model says of a row: its id, prediction, confidence and label."""
    full, empty = ("#", ".") if ascii_only else ("\N{BLACK RECTANGLE}", "\N{MIDDLE DOT}")
    filled = round(row.confidence * BAR)
    head = Text.assemble(
        (printable(row.id), "dim"),
        "  ",
        (printable(row.prediction), "bold"),
        f"  {full * filled}{empty * (BAR - filled)} {percent(row.confidence)}",
    )
    if row.label is not None:
        verdict = "label" if row.correct else "wrong, label"
        head.append(f"  {verdict}: {printable(row.label)}", style="" if row.correct else "bold")
    return head


def _body(pieces: Sequence[Piece], colour: bool, styled: bool) -> Text:
    body = Text()
    inside = False
    for piece in (*pieces, Piece("")):
        if piece.marked != inside and not styled:
            body.append("_")
        inside = piece.marked
        text = printable(piece.text)
        styles = ["underline"] if piece.marked else []
        if piece.share >= STRONG:
            styles.append("bold")
            text = text if colour else f"[{text}]"
        if colour and piece.share > FAINT:
            styles.append(f"rgb(20,18,16) on {_ground(piece.share)}")
        body.append(text, style=" ".join(styles))
    return body


def _ground(share: float) -> str:
    mixed = (round(pale + share * (deep - pale)) for pale, deep in zip(PALE, DEEP, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def _legend(colour: bool, styled: bool, marked: bool) -> Text:
    legend = Text("saliency, as a share of the row's maximum: ", style="dim")
    if colour:
        for share in (0.1, 0.25, 0.5, 0.75, 1.0):
            style = f"not dim rgb(20,18,16) on {_ground(share)}"
            legend.append(f" {share:.0%} ", style=style)
    else:
        legend.append(f"[{STRONG:.0%} or more]", style="bold")
    if marked:
        legend.append("   ").append("evidence" if styled else "_evidence_", style="underline")
    return legend


def printable(text: str) -> str:
    """``text`` with control characters, other than line ends and tabs, replaced."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t"
        else character
        for character in text
    )
