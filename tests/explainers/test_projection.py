"""Scores onto the simplex: each formula row by row, its bounds and its edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ivra.errors import IvraError
from ivra.explainers import PROJECTIONS, to_simplex


def naive(scores: list[float], by: str) -> list[float]:
    """The formula over explainable tokens alone, in Python's own floats."""
    if by == "softmax":
        parts = [math.exp(score - max(scores)) for score in scores]
    elif by == "sparsemax":
        for size in range(len(scores), 0, -1):
            top = sorted(scores)[-size:]
            threshold = (sum(top) - 1) / size
            if min(top) > threshold:
                break
        parts = [max(score - threshold, 0.0) for score in scores]
    else:
        parts = [abs(score) if by == "absolute" else max(score, 0.0) for score in scores]
        if not any(parts):
            parts = [1.0] * len(scores)
    return [part / sum(parts) for part in parts]


@pytest.mark.parametrize("by", PROJECTIONS)
@given(
    rows=st.lists(
        st.lists(
            st.tuples(
                st.floats(-5, 5, width=32).filter(lambda x: x == 0 or abs(x) > 1e-4), st.booleans()
            ),
            min_size=5,
            max_size=5,
        ).filter(lambda row: any(yes for _, yes in row)),
        min_size=1,
        max_size=4,
    )
)
def test_each_way_is_its_formula(by: str, rows: list[list[tuple[float, bool]]]) -> None:
    scores = torch.tensor([[score for score, _ in row] for row in rows], dtype=torch.float64)
    explainable = torch.tensor([[yes for _, yes in row] for row in rows])
    found = to_simplex(scores, explainable, by)
    assert (found[~explainable] == 0).all()
    assert (found >= 0).all()
    for row, mask, own in zip(scores, explainable, found, strict=True):
        assert own[mask].tolist() == pytest.approx(naive(row[mask].tolist(), by), abs=1e-9)
        assert float(own.sum()) == pytest.approx(1)


@pytest.mark.parametrize("by", ["positive", "absolute"])
def test_scores_so_small_that_their_sum_is_no_number_still_share(by: str) -> None:
    scores = torch.tensor([[2e-40, 6e-40, 0.0], [3e38, 3e38, 0.0]])
    explainable = torch.ones(2, 3, dtype=torch.bool)
    found = to_simplex(scores, explainable, by)
    assert found.isfinite().all()
    assert found[1].tolist() == [0.5, 0.5, 0.0]


def test_where_nothing_is_left_to_share_it_is_even_and_without_tokens_it_is_nothing() -> None:
    scores = torch.tensor([[-1.0, -2.0, 9.0], [1.0, 2.0, 3.0]])
    explainable = torch.tensor([[True, True, False], [False, False, False]])
    assert to_simplex(scores, explainable, "positive").tolist() == [[0.5, 0.5, 0.0], [0.0] * 3]


def test_an_unknown_way_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        to_simplex(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), "softmx")
    assert str(caught.value) == (
        "unknown projection 'softmx'. Did you mean 'softmax'? "
        "Choose from: absolute, positive, softmax, sparsemax."
    )
