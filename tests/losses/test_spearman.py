"""Rank correlation against scipy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivra.losses import average_ranks, spearman

tied = st.lists(st.integers(-3, 3), min_size=2, max_size=30)


@given(values=tied)
@settings(max_examples=100, deadline=None)
def test_equal_values_share_the_mean_of_their_places(values: list[int]) -> None:
    found = average_ranks(torch.tensor(values, dtype=torch.float32))
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.numpy(), scipy.stats.rankdata(values))


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=40))
@settings(max_examples=150, deadline=None)
def test_rho_is_scipys_with_ties(pairs: list[tuple[int, int]]) -> None:
    x, y = (list(side) for side in zip(*pairs, strict=True))
    found = spearman(torch.tensor(x).double(), torch.tensor(y).double())
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found is None
        return
    expected = scipy.stats.spearmanr(x, y).statistic
    assert found == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 1000), size=st.integers(3, 50))
@settings(max_examples=30, deadline=None)
def test_rho_is_scipys_of_real_numbers(seed: int, size: int) -> None:
    x, y = torch.randn(2, size, generator=torch.Generator().manual_seed(seed)).unbind()
    found = spearman(x, y + x)
    assert found == pytest.approx(scipy.stats.spearmanr(x.numpy(), (y + x).numpy()).statistic)


def test_only_the_order_counts() -> None:
    x = torch.tensor([0.3, -1.0, 2.0, 5.0])
    assert spearman(x, x.exp()) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
    found = spearman(x, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert found is not None
    assert math.isclose(found, 0.8)


def test_rho_of_a_constant_is_undefined() -> None:
    constant, other = torch.ones(4), torch.arange(4.0)
    assert spearman(constant, other) is None
    assert spearman(other, constant) is None
