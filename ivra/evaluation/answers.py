"""How right a model's answers are: SQuAD's exact match and F1.

Rajpurkar et al. 2016.
"""

from collections.abc import Sequence

import numpy as np

from ivra.data import Item
from ivra.evaluation.bootstrap import Bootstrap, Floats
from ivra.evaluation.downstream import share_difference
from ivra.shapes import Outputs
from ivra.tasks import Task, answer_f1, exact_match

Columns = dict[str, Floats]


def answer_columns(task: Task, items: Sequence[Item], logits: Outputs) -> Columns:
    """``exact_match`` (0 or 1) and ``f1`` (in ``[0, 1]``) of each row, the best over its gold
    answers; one item and one row of ``logits`` a row."""
    said = [claim.prediction for claim in task.claims(items, logits, ())]
    gold = [[answer.text for answer in item.row.answers or ()] for item in items]
    pairs = list(zip(said, gold, strict=True))
    return {
        "exact_match": np.array([float(exact_match(*pair)) for pair in pairs]),
        "f1": np.array([answer_f1(*pair) for pair in pairs]),
    }


def answer_figures(columns: Columns, bootstrap: Bootstrap) -> dict[str, object]:
    """Their means over rows (shares, not percent), and the 95 % ``intervals`` of these."""
    means = {name: float(column.mean()) for name, column in columns.items()}
    return {**means, "intervals": dict(bootstrap.of_means(columns))}


def answers_against_plain(
    columns: Columns, plain: Columns, bootstrap: Bootstrap
) -> dict[str, object]:
    """The plain model's figures, and the ``difference`` in exact match (trained - plain) with its
    95 % interval over rows and the p-value of McNemar's exact test."""
    right, before = columns["exact_match"] == 1, plain["exact_match"] == 1
    return {**answer_figures(plain, bootstrap), **share_difference(right, before, bootstrap)}
