"""The ERASER benchmark's figures, as its published scorer computes them.

DeYoung et al. 2020 (ACL), section 4; where code and paper differ, both.
"""

import warnings
from collections.abc import Iterable, Sequence, Sized

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from ivra.data import Item, Row, Span
from ivra.evaluation.eraser import EraserScores, Scores, documents_of
from ivra.losses import AOPC_BINS

MATCH = 0.5
"""Intersection over union from which a predicted span counts as found."""

Places = dict[tuple[int, int], set[Span]]
"""Spans of words by row and document."""


def eraser_figures(items: Sequence[Item], found: Sequence[EraserScores]) -> dict[str, float | None]:
    """The benchmark's figures, as its published scorer has them.

    Faithfulness, in ``[-1, 1]``, of the predicted class ``y``: ``comprehensiveness`` is the mean
    of ``p(y | x) - p(y | x without the hard rationale)``, ``sufficiency`` of
    ``p(y | x) - p(y | the hard rationale)``; ``_aopc`` is the mean over the five bins
    1, 5, 10, 20, 50, as in the scorer, and ``_aopc_paper`` their sum over 6, as in the paper.

    Agreement with the rationales of the rows that have one, ``None`` if no row has: area under
    the precision-recall curve (``auprc``, by trapezia), ``average_precision`` and ``roc_auc``,
    means over documents (the last two over those with both marked and unmarked words; in
    ``auprc`` a document without a marked word counts 0.5); F1 of words (``token_f1``) and of
    spans matched from an intersection over union of 0.5 (``iou_f1``), micro-averaged over all
    rows and macro-averaged over documents. All in ``[0, 1]``.
    """
    figures: dict[str, float | None] = {}
    for name, which in (("comprehensiveness", 0), ("sufficiency", 1)):
        drops = np.array([_drops(row, which) for row in found])
        figures[name] = float(drops[:, 0].mean())
        figures[f"{name}_aopc"] = float(drops[:, 1:].mean())
        figures[f"{name}_aopc_paper"] = float(drops[:, 1:].sum(1).mean() / (len(AOPC_BINS) + 1))
    rows = [row for row, item in enumerate(items) if item.row.rationale is not None]
    marked = {row: _marked(items[row].row) for row in rows}
    rankings = _rankings(
        (scores, [any(s <= word < e for s, e in spans) for word in range(len(scores))])
        for row in rows
        for scores, spans in zip(found[row].soft, marked[row], strict=True)
    )
    truth, predicted = _places(marked), _places({row: found[row].hard for row in rows})
    return figures | rankings | _matches(truth, predicted)


def _drops(row: EraserScores, which: int) -> list[float]:
    """By the hard rationale, then by each of the five bins."""
    y = row.prediction
    reduced = [row.reduced, *(row.by_percent[percent] for percent in AOPC_BINS)]
    return [row.whole[y] - scores[which][y] for scores in reduced]


def _marked(row: Row) -> tuple[tuple[Span, ...], ...]:
    """The human rationale of each document as distinct spans of words.

    A word is in a span if they share a character; of ERASER rows this gives the evidences back.
    """
    found = []
    for place, words in documents_of(row):
        spans = set()
        for start, end in (row.rationale or ())[place]:
            inside = [w for w, (s, e) in enumerate(words) if s < end and start < e]
            if inside:
                spans.add((inside[0], inside[-1] + 1))
        found.append(tuple(sorted(spans)))
    return tuple(found)


def _places(rationales: dict[int, tuple[tuple[Span, ...], ...]]) -> Places:
    """The documents that have a span."""
    return {
        (row, document): set(spans)
        for row, documents in rationales.items()
        for document, spans in enumerate(documents)
        if spans
    }


def _rankings(documents: Iterable[tuple[Scores, list[bool]]]) -> dict[str, float | None]:
    areas: list[float] = []
    precisions: list[float] = []
    rocs: list[float] = []
    for scores, marks in documents:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No positive class found in y_true")
            precision, recall, _ = precision_recall_curve(marks, scores)
        areas.append(float(auc(recall, precision)))
        if any(marks) and not all(marks):
            precisions.append(float(average_precision_score(marks, scores)))
            rocs.append(float(roc_auc_score(marks, scores)))
    names = ("auprc", "average_precision", "roc_auc")
    values = (areas, precisions, rocs)
    return {n: float(np.mean(v)) if v else None for n, v in zip(names, values, strict=True)}


def _matches(truth: Places, predicted: Places) -> dict[str, float | None]:
    if not truth or not predicted:
        names = ("token_f1_micro", "token_f1_macro", "iou_f1_micro", "iou_f1_macro")
        return dict.fromkeys(names)
    marked, chosen = _by_word(truth), _by_word(predicted)
    keys = marked.keys() | chosen.keys()
    both = {key: len(marked.get(key, set()) & chosen.get(key, set())) for key in keys}
    by_document = [
        _f1(_share(both[key], chosen.get(key)), _share(both[key], marked.get(key))) for key in keys
    ]
    matched = {
        key: sum(any(_iou(p, t) >= MATCH for t in truth.get(key, ())) for p in spans)
        for key, spans in predicted.items()
    }
    precisions = [_share(matched[key], spans) for key, spans in predicted.items()]
    recalls = [_share(matched.get(key, 0), spans) for key, spans in truth.items()]
    return {
        "token_f1_micro": _micro(sum(both.values()), chosen.values(), marked.values()),
        "token_f1_macro": float(np.mean(by_document)),
        "iou_f1_micro": _micro(sum(matched.values()), predicted.values(), truth.values()),
        "iou_f1_macro": _f1(float(np.mean(precisions)), float(np.mean(recalls))),
    }


def _by_word(places: Places) -> dict[tuple[int, int], set[int]]:
    return {key: {w for s, e in spans for w in range(s, e)} for key, spans in places.items()}


def _micro(found: int, predicted: Iterable[Sized], truth: Iterable[Sized]) -> float:
    return _f1(found / sum(map(len, predicted)), found / sum(map(len, truth)))


def _share(found: int, of: Sized | None) -> float:
    return found / len(of) if of else 0.0


def _iou(one: Span, other: Span) -> float:
    shared = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (one[1] - one[0] + other[1] - other[0] - shared)


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0
