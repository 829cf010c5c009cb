"""ERASER's results format, field by field."""

import json
import math
from pathlib import Path

import pytest

from ivra.errors import IvraError
from ivra.reports import (
    EraserDocument,
    EraserInstance,
    EraserReduced,
    eraser_json,
    write_eraser,
)

REDUCED = EraserReduced({"no": 0.4, "yes": 0.6}, {"no": 0.3, "yes": 0.7})
INSTANCE = EraserInstance(
    annotation_id="a1",
    documents=(
        EraserDocument("a1_premise", (), (0.0, 0.25)),
        EraserDocument("a1_hypothesis", ((0, 1), (2, 4)), (0.5, 0.0, 0.125, 0.125)),
    ),
    classification="yes",
    scores={"no": 0.1, "yes": 0.9},
    reduced=REDUCED,
    thresholds={
        0.05: REDUCED,
        0.01: EraserReduced({"no": 0.2, "yes": 0.8}, {"no": 1.0, "yes": 0.0}),
    },
)


def test_a_row_has_the_fields_of_the_format() -> None:
    """And the document with a hard rationale first, which is where the scorer looks for one."""
    assert eraser_json(INSTANCE) == {
        "annotation_id": "a1",
        "rationales": [
            {
                "docid": "a1_hypothesis",
                "hard_rationale_predictions": [
                    {"start_token": 0, "end_token": 1},
                    {"start_token": 2, "end_token": 4},
                ],
                "soft_rationale_predictions": [0.5, 0.0, 0.125, 0.125],
            },
            {
                "docid": "a1_premise",
                "hard_rationale_predictions": [],
                "soft_rationale_predictions": [0.0, 0.25],
            },
        ],
        "classification": "yes",
        "classification_scores": {"no": 0.1, "yes": 0.9},
        "comprehensiveness_classification_scores": {"no": 0.4, "yes": 0.6},
        "sufficiency_classification_scores": {"no": 0.3, "yes": 0.7},
        "thresholded_scores": [
            {
                "threshold": 0.01,
                "comprehensiveness_classification_scores": {"no": 0.2, "yes": 0.8},
                "sufficiency_classification_scores": {"no": 1.0, "yes": 0.0},
            },
            {
                "threshold": 0.05,
                "comprehensiveness_classification_scores": {"no": 0.4, "yes": 0.6},
                "sufficiency_classification_scores": {"no": 0.3, "yes": 0.7},
            },
        ],
    }


def test_a_line_a_row_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    other = EraserInstance(**(vars(INSTANCE) | {"annotation_id": "été\u2028"}))
    write_eraser(path, [INSTANCE, other])
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert [json.loads(line) for line in text.removesuffix("\n").split("\n")] == [
        eraser_json(INSTANCE),
        eraser_json(other),
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_score_that_is_no_number_writes_nothing(tmp_path: Path, value: float) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("earlier")
    bad = EraserInstance(**(vars(INSTANCE) | {"scores": {"no": value, "yes": 0.5}}))
    with pytest.raises(IvraError) as caught:
        write_eraser(path, [INSTANCE, bad])
    assert str(caught.value) == (
        f"cannot write {path}: a score of 'a1' is not a finite number, which JSON does not have."
    )
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
