"""What the model paid: its own accuracy and macro F1, beside the plain fine-tuned model's."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score

from ivra.evaluation.bootstrap import Bootstrap, Floats
from ivra.evaluation.significance import paired_test


def macro_f1_of_shares(means: Floats) -> Floats:
    """Mean over classes of ``F1_c = 2 tp_c / (predicted_c + gold_c)``, in ``[0, 1]``.

    Over the classes that are predicted or gold in some row, as in scikit-learn.

    Args:
        means: ``(samples, 3 C)``: of every class the shares of rows that are true positives,
            that are predicted so, and that are of the class.
    """
    positives, predicted, gold = np.split(means, 3, axis=1)
    there = predicted + gold > 0
    scores = 2 * positives / np.where(there, predicted + gold, 1.0)
    return scores.sum(1) / there.sum(1)


def class_rows(gold: Sequence[int], predicted: Sequence[int], classes: int) -> Floats:
    """What :func:`macro_f1_of_shares` takes the means of, ``(rows, 3 C)``."""
    eye = np.eye(classes)
    truth, guess = eye[np.asarray(gold)], eye[np.asarray(predicted)]
    return np.concatenate([truth * guess, guess, truth], axis=1)


def accuracy_figures(
    gold: Sequence[int], predicted: Sequence[int], classes: int, bootstrap: Bootstrap
) -> dict[str, object]:
    """``accuracy`` and ``macro_f1`` (scikit-learn), and their 95 % ``intervals`` over rows."""
    rows = class_rows(gold, predicted, classes)
    right = np.equal(gold, predicted).astype(float)
    intervals = dict(bootstrap.of_means({"accuracy": right}))
    interval = bootstrap.interval(rows, macro_f1_of_shares)
    if interval is not None:
        intervals["macro_f1"] = interval
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro")),
        "intervals": intervals,
    }


def against_plain(
    gold: Sequence[int],
    predicted: Sequence[int],
    plain: Sequence[int],
    classes: int,
    bootstrap: Bootstrap,
) -> dict[str, object]:
    """The plain model's figures, and the ``difference`` in accuracy (trained - plain) with its
    95 % interval over rows and the p-value of McNemar's exact test."""
    return {
        **accuracy_figures(gold, plain, classes, bootstrap),
        **share_difference(np.equal(gold, predicted), np.equal(gold, plain), bootstrap),
    }


def share_difference(
    right: NDArray[np.bool_], before: NDArray[np.bool_], bootstrap: Bootstrap
) -> dict[str, object]:
    """The ``difference`` in the share of right rows, ``(N,)`` each, its 95 % interval over rows
    and the p-value of McNemar's exact test."""
    test = paired_test(right[None], before[None])
    gap = {"difference": right.astype(float) - before}
    return {
        "difference": test.difference,
        "difference_interval": bootstrap.of_means(gap).get("difference"),
        "p_value": test.p_value,
    }
