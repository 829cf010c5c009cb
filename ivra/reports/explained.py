"""One row with one explanation, and its text cut into coloured pieces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ivra.errors import IvraError

Span = tuple[int, int]
"""Start and end (exclusive) in Unicode code points of one text."""


@dataclass(frozen=True)
class ExplainedRow:
    """One row, what the model says of it and one explainer's reason.

    ``tokens``, ``spans``, ``segment``, ``saliency``, ``explainable`` and, where there is one,
    ``rationale`` run in parallel. A span lies within ``texts[segment]`` and is ``None`` on
    special tokens, whose ``segment`` is ignored. ``saliency`` is any finite number; what is not
    positive is shown without colour. ``rationale`` marks human or planted evidence, and ``None``
    says that nobody annotated the row. ``confidence`` is the probability of ``prediction``.
    ``correct`` says whether that is right (default: whether it is the ``label``), ``answer`` where
    it stands in the last text, if it was found there.
    Rows with the same ``id`` are the same example seen by several explainers.
    """

    id: str
    explainer: str
    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    spans: tuple[Span | None, ...]
    segment: tuple[int, ...]
    saliency: tuple[float, ...]
    explainable: tuple[bool, ...]
    prediction: str
    confidence: float
    probabilities: dict[str, float]
    label: str | None = None
    rationale: tuple[bool, ...] | None = None
    correct: bool | None = None
    answer: Span | None = None

    def __post_init__(self) -> None:
        if self.correct is None and self.label is not None:
            object.__setattr__(self, "correct", self.label == self.prediction)
        if self.answer is not None and not (
            0 <= self.answer[0] <= self.answer[1] <= len(self.texts[-1])
        ):
            raise IvraError(
                f"row {self.id}: the answer {self.answer} leaves its text of "
                f"{len(self.texts[-1])} characters. Give code points from 0."
            )
        for field in ("spans", "segment", "saliency", "explainable", "rationale"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.tokens):
                raise IvraError(
                    f"row {self.id}: {field} has {len(values)} entries for {len(self.tokens)} "
                    "tokens. Give one a token."
                )
        if not 0 <= self.confidence <= 1:
            raise IvraError(
                f"row {self.id}: confidence is {self.confidence}. Give a probability from 0 to 1."
            )
        for token, value in zip(self.tokens, self.saliency, strict=True):
            if not math.isfinite(value):
                raise IvraError(
                    f"row {self.id}: the saliency of '{token}' is {value}. Give a finite number."
                )
        for token, span, segment in zip(self.tokens, self.spans, self.segment, strict=True):
            if span is None:
                continue
            if not 0 <= segment < len(self.texts):
                raise IvraError(
                    f"row {self.id}: '{token}' is in text {segment} of {len(self.texts)}. "
                    "Texts count from 0; special tokens have the span None."
                )
            if not 0 <= span[0] <= span[1] <= len(self.texts[segment]):
                raise IvraError(
                    f"row {self.id}: the span {span} of '{token}' leaves its text of "
                    f"{len(self.texts[segment])} characters. Give code points from 0."
                )


@dataclass(frozen=True)
class Piece:
    """A stretch of one text: one or more tokens, or what lies between tokens.

    ``tokens`` are their indices, empty between tokens; ``saliency`` is their sum; ``share`` is
    the part of the row's largest piece, from 0 to 1. ``marked`` stretches are evidence.
    ``joined`` pieces start where the token before them ended: subwords of one word. ``answer``
    stretches are the model's answer.
    """

    text: str
    tokens: tuple[int, ...] = ()
    saliency: float = 0.0
    share: float = 0.0
    explainable: bool = False
    marked: bool = False
    joined: bool = False
    answer: bool = False


def cut(row: ExplainedRow) -> tuple[tuple[Piece, ...], ...]:
    """The texts of ``row``, each cut into pieces whose texts joined are the text, verbatim.

    Tokens that share characters (the bytes of one emoji) or have none (a lone word boundary)
    join the token piece before them, else the one after. White space at the ends of a span is
    left between tokens, unless the token is nothing else. White space between two marked
    pieces is marked.
    """
    texts = tuple(_cut_text(row, index) for index in range(len(row.texts)))
    top = max((piece.saliency for pieces in texts for piece in pieces), default=0.0)
    return tuple(
        tuple(_shared(piece, top) for piece in _with_marked_gaps(pieces)) for pieces in texts
    )


def top_pieces(row: ExplainedRow, count: int) -> tuple[Piece, ...]:
    """The ``count`` pieces of most saliency, largest first, ties in reading order; none at 0."""
    pieces = [piece for text in cut(row) for piece in text if piece.share > 0]
    return tuple(sorted(pieces, key=lambda piece: -piece.saliency)[:count])


def by_example(rows: Sequence[ExplainedRow]) -> tuple[tuple[ExplainedRow, ...], ...]:
    """Neighbouring rows with the same id, together."""
    return tuple(tuple(group) for _, group in groupby(rows, key=lambda row: row.id))


def percent(probability: float) -> str:
    """One decimal, and never 100 or 0 for what is only nearly so: ``98.4%``, ``> 99.9%``."""
    if 0.9995 <= probability < 1:
        return "> 99.9%"
    return "< 0.1%" if 0 < probability < 0.0005 else f"{probability:.1%}"


def _cut_text(row: ExplainedRow, index: int) -> list[Piece]:
    text = row.texts[index]
    groups: list[tuple[int, int, list[int]]] = []
    pending: list[int] = []
    for first, end, token in _spans_of(row, index):
        start = max(first, groups[-1][1]) if groups else first
        if start < end:
            groups.append((start, end, [*pending, token]))
            pending = []
        elif groups:
            groups[-1][2].append(token)
        else:
            pending.append(token)
    pieces: list[Piece] = []
    cursor = 0
    for start, end, tokens in groups:
        if cursor < start:
            pieces.append(Piece(text[cursor:start]))
        pieces.append(
            Piece(
                text[start:end],
                tokens=tuple(tokens),
                saliency=sum(row.saliency[token] for token in tokens),
                explainable=any(row.explainable[token] for token in tokens),
                marked=row.rationale is not None and any(row.rationale[t] for t in tokens),
                joined=bool(pieces) and cursor == start,
                answer=_answers(row, index, start, end),
            )
        )
        cursor = end
    return [*pieces, Piece(text[cursor:])] if cursor < len(text) else pieces


def _answers(row: ExplainedRow, index: int, start: int, end: int) -> bool:
    """Whether a stretch of text ``index`` overlaps the model's answer."""
    if row.answer is None or index != len(row.texts) - 1:
        return False
    return start < row.answer[1] and row.answer[0] < end


def _spans_of(row: ExplainedRow, index: int) -> list[tuple[int, int, int]]:
    """Start, end and token of every span in text ``index``, in reading order, white space off."""
    spans = []
    for token, (span, segment) in enumerate(zip(row.spans, row.segment, strict=True)):
        if span is None or segment != index:
            continue
        covered = row.texts[index][span[0] : span[1]]
        start, end = span
        if covered.strip():
            start += len(covered) - len(covered.lstrip())
            end -= len(covered) - len(covered.rstrip())
        spans.append((start, end, token))
    return sorted(spans)


def _with_marked_gaps(pieces: list[Piece]) -> list[Piece]:
    result = list(pieces)
    for i, piece in enumerate(pieces[1:-1], start=1):
        bridged = pieces[i - 1].marked and pieces[i + 1].marked
        if not piece.tokens and bridged and piece.text.isspace():
            result[i] = Piece(piece.text, marked=True)
    return result


def _shared(piece: Piece, top: float) -> Piece:
    return replace(piece, share=max(piece.saliency, 0.0) / top if top > 0 else 0.0)
