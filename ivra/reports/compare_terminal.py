"""Comparisons in a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ivra.reports.compare import Card, Compared, Toned, cards, printed
from ivra.reports.explained import Piece
from ivra.reports.terminal import head, printable

FOR = ((255, 241, 224), (249, 128, 29))
AGAINST = ((228, 240, 252), (74, 144, 226))
"""The pale and the deep end of each hue; dark text is legible on all of it."""
FAINT = 0.06
STRONG = 0.5


@dataclass(frozen=True)
class RenderedComparison:
    """A rich renderable; it asks the terminal for colour and characters when it is printed."""

    cards: tuple[Card, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        styled = console.color_system is not None
        colour = styled and not console.no_color
        for number, card in enumerate(self.cards):
            if number:
                yield Text()
            yield head(card.row, options.ascii_only)
            yield _table(card, colour, styled)
        if self.cards:
            yield Text()
            yield _legend(self.cards, colour, styled)


def render_comparison(
    compared: Sequence[Compared], titles: Mapping[str, str]
) -> RenderedComparison:
    """Rows for ``rich.print``: what the model says, then a line an explainer.

    Each line holds the text, comprehensiveness and sufficiency on that row, the best bold. The
    colour of a token is its share of the line's largest score, orange for the prediction and
    blue against it; without colour what is strong stands in brackets, or in parentheses where
    it speaks against. Evidence is underlined, or between underscores without any styles.
    """
    return RenderedComparison(cards(compared, titles))


def _table(card: Card, colour: bool, styled: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0), expand=False)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", ratio=1)
    table.add_column("COMP ↑", justify="right", no_wrap=True)
    table.add_column("SUFF ↓", justify="right", no_wrap=True)
    for line in card.lines:
        texts = [_body(pieces, colour, styled) for pieces in line.texts]
        table.add_row(
            Text(printable(line.explainer)),
            Group(*texts),
            Text(printed(line.comp), style="bold" if line.best_comp else ""),
            Text(printed(line.suff), style="bold" if line.best_suff else ""),
        )
    return table


def _body(pieces: Sequence[Toned], colour: bool, styled: bool) -> Text:
    body = Text()
    inside = False
    for toned in (*pieces, Toned(Piece(""), 0.0)):
        piece, tone = toned.piece, toned.tone
        if piece.marked != inside and not styled:
            body.append("_")
        inside = piece.marked
        text = printable(piece.text)
        styles = ["underline"] if piece.marked else []
        if abs(tone) >= STRONG:
            styles.append("bold")
            if not colour:
                text = f"[{text}]" if tone > 0 else f"({text})"
        if colour and abs(tone) > FAINT:
            styles.append(f"rgb(20,18,16) on {_ground(tone)}")
        body.append(text, style=" ".join(styles))
    return body


def _ground(tone: float) -> str:
    pale, deep = FOR if tone > 0 else AGAINST
    mixed = (round(a + abs(tone) * (b - a)) for a, b in zip(pale, deep, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def _legend(shown: Sequence[Card], colour: bool, styled: bool) -> Text:
    tones = [t.tone for card in shown for line in card.lines for text in line.texts for t in text]
    signed = any(tone < 0 for tone in tones)
    legend = Text("share of the line's largest score: ", style="dim")
    if colour:
        steps = (-1.0, -0.5, 0.5, 1.0) if signed else (0.25, 0.5, 1.0)
        for tone in steps:
            legend.append(f" {tone:+.0%} ", style=f"not dim rgb(20,18,16) on {_ground(tone)}")
    else:
        legend.append(f"[{STRONG:.0%} or more]", style="bold")
        if signed:
            legend.append(" ").append(f"({STRONG:.0%} or more, against the prediction)")
    if any(card.row.rationale is not None for card in shown):
        legend.append("   ").append("evidence" if styled else "_evidence_", style="underline")
    return legend
