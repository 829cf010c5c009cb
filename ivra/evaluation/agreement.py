"""The plausibility figures of one explainer, on tokens or on words, with their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from ivra.evaluation.bootstrap import Bootstrap, Floats, Interval
from ivra.evaluation.plausibility import Units, hard_rationales, iou_f1, marked_share, rankings

TOKEN_KEYS = {
    "auc": "plausibility",
    "average_precision": "average_precision",
    "recall_at": "recall_at",
    "precision": "token_precision",
    "recall": "token_recall",
    "f1": "token_f1",
    "iou_f1": "iou_f1",
    "ranked": "plausibility_rows",
    "marked": "rationale_rows",
}
"""Under which keys figures on tokens stand in a result."""
WORD_KEYS = {
    "auc": "word_auc",
    "average_precision": "word_average_precision",
    "recall_at": "word_recall_at",
    "precision": "word_precision",
    "recall": "word_recall",
    "f1": "word_f1",
    "iou_f1": "word_iou_f1",
    "ranked": "word_plausibility_rows",
    "marked": "word_rationale_rows",
}
"""Under which keys figures on words stand."""
NO_RANKING = "no row has both marked and unmarked tokens"
NO_RATIONALE = "no row has a marked token"


def plausibility_figures(
    rows: Sequence[Units],
    keys: Mapping[str, str],
    recall_k: Sequence[int],
    bootstrap: Bootstrap,
) -> tuple[dict[str, object], dict[str, Interval], dict[str, str]]:
    """Figures (``None`` where undefined), 95 % intervals over rows, and reasons, by key.

    Hard rationales take the mean share that the marks of ``rows`` themselves cover.
    """
    ranked = rankings(rows, recall_k)
    columns: dict[str, Sequence[float]] = {
        keys["auc"]: ranked.auc,
        keys["average_precision"]: ranked.average_precision,
        f"{keys['recall_at']}_marked": ranked.recall_at_marked,
        **{f"{keys['recall_at']}_{k}": values for k, values in ranked.recall_at.items()},
    }
    reasons = {} if ranked.auc else dict.fromkeys(columns, NO_RANKING)
    hard = hard_rationales(rows, marked_share(rows) or 0.0)
    columns |= {
        keys["precision"]: hard.precision,
        keys["recall"]: hard.recall,
        keys["f1"]: hard.f1,
    }
    if not hard.f1:
        reasons |= {keys[name]: NO_RATIONALE for name in ("precision", "recall", "f1", "iou_f1")}
    figures: dict[str, object] = {
        key: float(np.mean(column)) if column else None for key, column in columns.items()
    }
    intervals = bootstrap.of_means(columns)
    both = np.array([hard.span_precision, hard.span_recall]).T
    figures[keys["iou_f1"]] = _iou_f1(both[None].mean(1)).item() if hard.f1 else None
    interval = bootstrap.interval(both, _iou_f1)
    if interval is not None:
        intervals[keys["iou_f1"]] = interval
    figures |= {keys["ranked"]: len(ranked.auc), keys["marked"]: len(hard.f1)}
    return figures, intervals, reasons


def _iou_f1(means: Floats) -> Floats:
    return iou_f1(means[:, 0], means[:, 1])
