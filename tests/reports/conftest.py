"""Small explained rows for the tests of the reports."""

import re
from collections.abc import Callable, Sequence

import pytest

from ivra.reports.explained import ExplainedRow, Span


def _explained(
    text: str,
    saliency: Sequence[float],
    spans: Sequence[Span | None] | None = None,
    rationale: Sequence[bool] | None = None,
    label: str | None = "positive",
    explainer: str = "ivra",
    id: str = "row-1",
) -> ExplainedRow:
    """``text`` predicted positive; a token a word unless ``spans`` are given."""
    if spans is None:
        spans = [match.span() for match in re.finditer(r"\S+", text)]
    return ExplainedRow(
        id=id,
        explainer=explainer,
        texts=(text,),
        tokens=tuple("[CLS]" if span is None else text[slice(*span)] for span in spans),
        spans=tuple(spans),
        segment=tuple(-1 if span is None else 0 for span in spans),
        saliency=tuple(map(float, saliency)),
        explainable=tuple(span is not None for span in spans),
        prediction="positive",
        confidence=0.75,
        probabilities={"negative": 0.25, "positive": 0.75},
        label=label,
        rationale=None if rationale is None else tuple(map(bool, rationale)),
    )


@pytest.fixture(scope="session")
def explained() -> Callable[..., ExplainedRow]:
    """Builds one explained row."""
    return _explained
