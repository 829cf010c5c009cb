"""Agreement of a ranking of tokens, or of words, with human (or planted) rationales.

Rankings: DeYoung et al. 2020 (ERASER), Ferreira et al. 2024. Token F1 and IoU F1: ERASER.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ivra.data import Item
from ivra.evaluation.bootstrap import Floats

MATCH = 0.5
"""Intersection over union from which a predicted span counts as found (ERASER)."""

Span = tuple[int, int]


class Units(NamedTuple):
    """The explainable tokens, or the words, of one row in order: a score, whether a human marked
    it, and the text it stands in. All of the same length."""

    scores: NDArray[np.float64]
    marks: NDArray[np.bool_]
    segment: NDArray[np.int64]


class RankingFigures(NamedTuple):
    """One value a row that counts: rows with both marked and unmarked units."""

    auc: list[float]
    average_precision: list[float]
    recall_at_marked: list[float]
    recall_at: dict[int, list[float]]


class HardFigures(NamedTuple):
    """Of the top units as a hard rationale, one value a row with a marked unit.

    ``precision``, ``recall`` and ``f1`` are of units; ``span_precision`` and ``span_recall`` are
    shares of the predicted spans that match a marked one, over the predicted and the marked.
    """

    precision: list[float]
    recall: list[float]
    f1: list[float]
    span_precision: list[float]
    span_recall: list[float]


def token_units(item: Item, scores: Tensor) -> Units | None:
    """The explainable tokens of a row with ``scores (L,)``; ``None`` if nobody annotated it."""
    if item.rationale is None:
        return None
    yes = np.array(item.explainable, dtype=bool)
    return Units(
        scores.double().numpy()[yes],
        np.array(item.rationale, dtype=bool)[yes],
        np.array(item.segment, dtype=np.int64)[yes],
    )


def word_units(item: Item, scores: Tensor) -> Units | None:
    """The whitespace-delimited words of a row; ``None`` if nobody annotated it.

    A word's score is the sum over its explainable tokens (IvRA); it is marked if one of them is.
    """
    tokens = token_units(item, scores)
    if tokens is None:
        return None
    words = np.array(item.word, dtype=np.int64)[np.array(item.explainable, dtype=bool)]
    _, first, place = np.unique(words, return_index=True, return_inverse=True)
    return Units(
        np.bincount(place, weights=tokens.scores).astype(np.float64),
        np.bincount(place, weights=tokens.marks) > 0,
        tokens.segment[first],
    )


def roc_auc(units: Units) -> float:
    """Area under the ROC curve, in ``[0, 1]``: the share of pairs of a marked and an unmarked unit
    that the scores put in order, a tie counting half. Needs both kinds."""
    ends, found = _thresholds(units)
    marked, unmarked = found[-1], len(units.marks) - found[-1]
    height = (found + np.r_[0, found[:-1]]) / 2  # of each trapezium, a tie's included
    return float((np.diff(ends - found, prepend=0) * height).sum() / (marked * unmarked))


def average_precision(units: Units) -> float:
    """``sum_n (R_n - R_{n-1}) P_n`` over the distinct scores from the top, in ``(0, 1]``.

    ``P_n`` and ``R_n`` are precision and recall of the units scored at least the n-th; equal
    scores enter together (scikit-learn's definition, which ERASER uses). Needs a marked unit.
    """
    ends, found = _thresholds(units)
    return float((np.diff(found, prepend=0) * found / ends).sum() / found[-1])


def recall_at(units: Units, k: int) -> float:
    """Share of the marked units among the ``k`` highest scores, in ``[0, min(1, k / marked)]``.

    Ties go to the earlier unit. With ``k`` the number of marked units it is also the precision
    (Ferreira et al. 2024). Needs a marked unit.
    """
    return float(units.marks[_top(units, k)].sum() / units.marks.sum())


def _top(units: Units, k: int) -> NDArray[np.int64]:
    return np.argsort(-units.scores, kind="stable")[:k]


def _thresholds(units: Units) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every distinct score from the top: how many units reach it, and how many are marked."""
    order = np.argsort(-units.scores, kind="stable")
    scores = units.scores[order]
    ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
    return ends + 1, units.marks[order].cumsum()[ends]


def rankings(rows: Sequence[Units], recall_k: Sequence[int] = ()) -> RankingFigures:
    """AUC, average precision and recall of the rows that have marked and unmarked units."""
    both = [row for row in rows if row.marks.any() and not row.marks.all()]
    return RankingFigures(
        auc=[roc_auc(row) for row in both],
        average_precision=[average_precision(row) for row in both],
        recall_at_marked=[recall_at(row, int(row.marks.sum())) for row in both],
        recall_at={k: [recall_at(row, k) for row in both] for k in recall_k},
    )


def marked_share(rows: Sequence[Units]) -> float | None:
    """Mean over the rows with a marked unit of the share of marked units; ``None`` without one."""
    shares = [float(row.marks.mean()) for row in rows if row.marks.any()]
    return math.fsum(shares) / len(shares) if shares else None


def hard_rationales(rows: Sequence[Units], share: float) -> HardFigures:
    """The top ``max(1, ceil(share * N))`` of the ``N`` units of a row against its marks.

    ERASER: a soft score becomes a hard rationale of the average length of human ones, ``share``
    (:func:`marked_share`). Only rows with a marked unit count. A span is a run of neighbouring
    units of one text; a predicted span matches if its intersection over union with some marked
    span is 0.5 or more.
    """
    figures = HardFigures([], [], [], [], [])
    for row in rows:
        if not row.marks.any():
            continue
        count = max(1, math.ceil(share * len(row.marks) - 1e-9))
        chosen = np.zeros(len(row.marks), dtype=bool)
        chosen[_top(row, count)] = True
        hits = int((chosen & row.marks).sum())
        figures.precision.append(hits / int(chosen.sum()))
        figures.recall.append(hits / int(row.marks.sum()))
        figures.f1.append(2 * hits / int(chosen.sum() + row.marks.sum()))
        predicted, marked = spans(chosen, row.segment), spans(row.marks, row.segment)
        matches = sum(max(_overlap(p, m) for m in marked) >= MATCH for p in predicted)
        figures.span_precision.append(matches / len(predicted))
        figures.span_recall.append(matches / len(marked))
    return figures


def iou_f1(span_precision: Floats, span_recall: Floats) -> Floats:
    """ERASER's macro IoU F1 ``2 P R / (P + R)`` of mean precisions and recalls; 0 where both are.

    It is the F1 of the means over rows, not the mean of the rows' F1.
    """
    total = span_precision + span_recall
    return 2 * span_precision * span_recall / np.where(total > 0, total, 1.0)


def spans(chosen: NDArray[np.bool_], segment: NDArray[np.int64]) -> list[Span]:
    """Runs of chosen neighbours within one text, as start and end (exclusive)."""
    found: list[Span] = []
    for place in np.flatnonzero(chosen).tolist():
        if found and found[-1][1] == place and segment[place] == segment[place - 1]:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def _overlap(a: Span, b: Span) -> float:
    """Intersection over union of two spans that are not empty."""
    shared = max(0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / (a[1] - a[0] + b[1] - b[0] - shared)


def plausibility_auc(items: Sequence[Item], scores: Sequence[Tensor]) -> tuple[float | None, int]:
    """Mean area under the ROC curve of the scores against the rationale, and the rows counted.

    Over explainable tokens, a row at a time, in ``[0, 1]``, 0.5 for chance, higher is better.
    Rows that nobody annotated, or in which all or no tokens are marked, have no AUC and are
    left out; ``(None, 0)`` (undefined) if none is left.
    """
    units = [token_units(item, row) for item, row in zip(items, scores, strict=True)]
    found = rankings([row for row in units if row is not None]).auc
    return (math.fsum(found) / len(found), len(found)) if found else (None, 0)
