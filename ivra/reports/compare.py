"""Rows explained by several explainers side by side, each with what it is worth on that row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ivra.errors import IvraError
from ivra.reports.explained import ExplainedRow, Piece, by_example, cut
from ivra.reports.export import explain_json


@dataclass(frozen=True)
class Compared:
    """One row with one explanation, and the comprehensiveness and sufficiency of it there.

    ``None`` where there is none: a row without a token that can be removed.
    """

    row: ExplainedRow
    comp: float | None
    suff: float | None

    def __post_init__(self) -> None:
        for name, value in (("comp", self.comp), ("suff", self.suff)):
            if value is not None and not math.isfinite(value):
                raise IvraError(
                    f"row {self.row.id}: {name} is {value}. Give a finite number, or None."
                )


@dataclass(frozen=True)
class Toned:
    """A piece of text; ``tone`` from -1 to 1 is its share of the largest score, with its sign."""

    piece: Piece
    tone: float


@dataclass(frozen=True)
class Line:
    """One explainer's line of a card; the best figures of the card are marked."""

    explainer: str
    texts: tuple[tuple[Toned, ...], ...]
    comp: float | None
    suff: float | None
    best_comp: bool
    best_suff: bool


@dataclass(frozen=True)
class Card:
    """One row: what the model says of it, and a line an explainer."""

    row: ExplainedRow
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class ComparePage:
    """What the page of comparisons holds; ``evidence`` says what underlined tokens are."""

    run: str
    model: str
    criteria: tuple[str, ...]
    date: str
    compared: tuple[Compared, ...]
    titles: Mapping[str, str] = field(default_factory=dict)
    evidence: str = "human rationale"


def toned(row: ExplainedRow) -> tuple[tuple[Toned, ...], ...]:
    """The texts of ``row`` in pieces, each with its score over the largest of the row, signed.

    ``tone = s / max |s|`` over the pieces of all texts, 0 where every score is 0: the sign
    stays, so that what speaks against the prediction can have a colour of its own.
    """
    texts = cut(row)
    top = max((abs(piece.saliency) for pieces in texts for piece in pieces), default=0.0)
    return tuple(
        tuple(Toned(piece, piece.saliency / top if top > 0 else 0.0) for piece in pieces)
        for pieces in texts
    )


def cards(compared: Sequence[Compared], titles: Mapping[str, str]) -> tuple[Card, ...]:
    """Neighbouring entries of one row as a card.

    The best of a card is judged as printed, to two digits, ties included; where all look alike
    none is.
    """
    of_row = {id(entry.row): entry for entry in compared}
    made = []
    for group in by_example([entry.row for entry in compared]):
        entries = [of_row[id(row)] for row in group]
        best_comp = _best([entry.comp for entry in entries], max)
        best_suff = _best([entry.suff for entry in entries], min)
        lines = tuple(
            Line(
                titles.get(entry.row.explainer, entry.row.explainer),
                toned(entry.row),
                entry.comp,
                entry.suff,
                entry.comp is not None and printed(entry.comp) == best_comp,
                entry.suff is not None and printed(entry.suff) == best_suff,
            )
            for entry in entries
        )
        made.append(Card(group[0], lines))
    return tuple(made)


def printed(value: float | None) -> str:
    """Two digits with a real minus sign; a dash for nothing."""
    if value is None:
        return "\N{EN DASH}"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")


def compare_json(compared: Sequence[Compared]) -> list[dict[str, object]]:
    """The rows as :func:`explain_json` gives them, with ``comp`` and ``suff``."""
    rows = explain_json([entry.row for entry in compared])
    return [
        {**row, "comp": entry.comp, "suff": entry.suff}
        for row, entry in zip(rows, compared, strict=True)
    ]


def _best(values: Sequence[float | None], choose: Callable[[list[float]], float]) -> str | None:
    known = [value for value in values if value is not None]
    if len({printed(value) for value in known}) < 2:
        return None
    return printed(choose(known))
