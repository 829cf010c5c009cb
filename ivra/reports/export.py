"""Explained rows as JSON."""

from collections.abc import Sequence

from ivra.reports.explained import ExplainedRow, Span


def explain_json(rows: Sequence[ExplainedRow]) -> list[dict[str, object]]:
    """``rows`` as plain dicts and lists, in order, ready for ``json.dumps``.

    Each token says its text (``segment``) and where it stands there (``start``, ``end``, in
    code points); the three are ``None`` on special tokens. ``rationale`` is ``None`` on every
    token of a row that nobody annotated. Of an ``answer`` there is the place in the last text.
    """
    return [
        {
            "id": row.id,
            "explainer": row.explainer,
            "texts": list(row.texts),
            "label": row.label,
            "prediction": row.prediction,
            "confidence": row.confidence,
            "probabilities": dict(row.probabilities),
            **({} if row.answer is None else _answer(row.answer)),
            "tokens": [_token(row, index) for index in range(len(row.tokens))],
        }
        for row in rows
    ]


def _answer(span: Span) -> dict[str, object]:
    return {"answer": {"start": span[0], "end": span[1]}}


def _token(row: ExplainedRow, index: int) -> dict[str, object]:
    span = row.spans[index]
    return {
        "token": row.tokens[index],
        "segment": None if span is None else row.segment[index],
        "start": None if span is None else span[0],
        "end": None if span is None else span[1],
        "saliency": row.saliency[index],
        "explainable": row.explainable[index],
        "rationale": None if row.rationale is None else row.rationale[index],
    }
