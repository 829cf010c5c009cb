"""Macro F1 of resampled rows against scikit-learn, and the plain model beside the trained one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from ivra.evaluation import (
    Bootstrap,
    accuracy_figures,
    against_plain,
    class_rows,
    macro_f1_of_shares,
)

labels = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=25
)


@given(labels)
def test_macro_f1_is_that_of_scikit_learn_in_every_draw(
    rows: list[tuple[int, int, int]],
) -> None:
    """Also where a draw lacks a class, or the model never predicts one."""
    gold, predicted, _ = np.array(rows).T
    share = macro_f1_of_shares(class_rows(gold.tolist(), predicted.tolist(), 5).mean(0)[None])
    assert share.item() == pytest.approx(f1_score(gold, predicted, average="macro"), abs=1e-12)
    found = accuracy_figures(gold.tolist(), predicted.tolist(), 5, Bootstrap(15, 2))
    draws = np.random.default_rng(2).integers(0, len(rows), (15, len(rows)))
    scores = [f1_score(gold[draw], predicted[draw], average="macro") for draw in draws]
    shares = [(gold[draw] == predicted[draw]).mean() for draw in draws]
    assert found["intervals"] == {
        "accuracy": pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-12),
        "macro_f1": pytest.approx(np.percentile(scores, [2.5, 97.5]), abs=1e-12),
    }


@given(labels)
def test_the_plain_model_is_compared_row_by_row(rows: list[tuple[int, int, int]]) -> None:
    gold, predicted, plain = (column.tolist() for column in np.array(rows).T)
    found = against_plain(gold, predicted, plain, 4, Bootstrap(15, 2))
    right = [g == p for g, p in zip(gold, predicted, strict=True)]
    before = [g == p for g, p in zip(gold, plain, strict=True)]
    wins = sum(a > b for a, b in zip(right, before, strict=True))
    losses = sum(a < b for a, b in zip(right, before, strict=True))
    assert found["accuracy"] == sum(before) / len(rows)
    assert found["difference"] == pytest.approx((wins - losses) / len(rows))
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found["p_value"] == pytest.approx(expected, abs=1e-12)
    low, high = found["difference_interval"]  # type: ignore[misc]
    assert low <= high
