"""Predictions and rationales in ERASER's results format (DeYoung et al. 2020, ACL)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ivra.errors import IvraError
from ivra.storage import write_text_atomic

ByClass = Mapping[str, float]
"""A probability for every class."""


@dataclass(frozen=True)
class EraserDocument:
    """A document's rationale over its whitespace tokens: spans ``[start, end)``, and a score for
    every token."""

    docid: str
    hard: tuple[tuple[int, int], ...]
    soft: tuple[float, ...]


@dataclass(frozen=True)
class EraserReduced:
    """Class scores without the most important tokens, and with them alone."""

    comprehensiveness: ByClass
    sufficiency: ByClass


@dataclass(frozen=True)
class EraserInstance:
    """One row of the results: ``thresholds`` holds the reduced scores by share of tokens."""

    annotation_id: str
    documents: tuple[EraserDocument, ...]
    classification: str
    scores: ByClass
    reduced: EraserReduced
    thresholds: Mapping[float, EraserReduced]


def eraser_json(instance: EraserInstance) -> dict[str, object]:
    """``instance`` as the benchmark's scorer reads it.

    Documents with a hard rationale come first: the scorer looks at the first document of the
    first row alone to decide whether there are any.
    """
    documents = sorted(instance.documents, key=lambda document: not document.hard)
    return {
        "annotation_id": instance.annotation_id,
        "rationales": [
            {
                "docid": document.docid,
                "hard_rationale_predictions": [
                    {"start_token": start, "end_token": end} for start, end in document.hard
                ],
                "soft_rationale_predictions": list(document.soft),
            }
            for document in documents
        ],
        "classification": instance.classification,
        "classification_scores": dict(instance.scores),
        **_reduced(instance.reduced),
        "thresholded_scores": [
            {"threshold": threshold, **_reduced(reduced)}
            for threshold, reduced in sorted(instance.thresholds.items())
        ],
    }


def write_eraser(path: str | Path, instances: Sequence[EraserInstance]) -> None:
    """``instances`` as JSON Lines, one a row, in order; in one step, or not at all.

    Raises:
        IvraError: the file cannot be written, or a score is not finite.
    """
    lines = []
    for instance in instances:
        try:
            line = json.dumps(eraser_json(instance), ensure_ascii=False, allow_nan=False)
        except ValueError:
            raise IvraError(
                f"cannot write {path}: a score of '{instance.annotation_id}' is not a finite "
                f"number, which JSON does not have."
            ) from None
        lines.append(line + "\n")
    write_text_atomic(path, "".join(lines))


def _reduced(reduced: EraserReduced) -> dict[str, object]:
    return {
        "comprehensiveness_classification_scores": dict(reduced.comprehensiveness),
        "sufficiency_classification_scores": dict(reduced.sufficiency),
    }
