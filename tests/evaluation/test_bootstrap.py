"""Intervals against scipy's bootstrap, a loop over draws, and how often they hold the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from ivra.evaluation import Bootstrap, percentile_interval, resampled_means

VALUES = np.random.default_rng(5).gamma(0.7, size=(37, 3))


def test_the_interval_is_that_of_scipy_from_the_same_draws() -> None:
    ours = Bootstrap(400, 9).of_means({"a": VALUES[:, 0], "b": VALUES[:, 1]})
    for place, key in enumerate(("a", "b")):
        theirs = bootstrap(
            (VALUES[:, place],),
            np.mean,
            n_resamples=400,
            method="percentile",
            rng=np.random.default_rng(9),
        ).confidence_interval
        assert ours[key] == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("chunk", "kept"), [(10**6, 10**6), (100, 10**6), (100, 0)])
def test_every_resample_is_a_draw_of_rows_in_turn(
    monkeypatch: pytest.MonkeyPatch, chunk: int, kept: int
) -> None:
    """Also two resamples at a time, and whether the draws are kept or not."""
    monkeypatch.setattr("ivra.evaluation.bootstrap.CHUNK", chunk)
    monkeypatch.setattr("ivra.evaluation.bootstrap.KEPT", kept)
    seed = chunk + kept
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, 37, 37) for _ in range(51)]
    for values in (VALUES, 2 * VALUES[:, :1]):
        expected = [values[draw].mean(0) for draw in draws]
        np.testing.assert_allclose(resampled_means(values, 51, seed), expected, atol=1e-12)


def test_figures_of_the_same_rows_share_the_draws() -> None:
    means = resampled_means(np.column_stack([VALUES, VALUES[:, 0] - VALUES[:, 1]]), 30, 0)
    np.testing.assert_allclose(means[:, 3], means[:, 0] - means[:, 1], atol=1e-12)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    st.integers(1, 60),
    st.integers(0, 2**32),
)
def test_an_interval_lies_within_the_values(values: list[float], resamples: int, seed: int) -> None:
    low, high = Bootstrap(resamples, seed).of_means({"x": values})["x"]
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (low, high) == Bootstrap(resamples, seed).of_means({"x": values})["x"]


def test_a_statistic_of_several_means_is_taken_in_each_resample() -> None:
    def ratio(means: np.ndarray) -> np.ndarray:
        return means[:, 0] / means[:, 1]

    expected = percentile_interval(ratio(resampled_means(VALUES, 80, 4)))
    assert Bootstrap(80, 4).interval(VALUES, ratio) == expected


@pytest.mark.parametrize("rows", [0, 1])
def test_one_row_has_no_interval(rows: int) -> None:
    assert Bootstrap(10, 0).of_means({"x": [1.0] * rows}) == {}
    assert Bootstrap(10, 0).interval(np.ones((rows, 2)), lambda means: means[:, 0]) is None


def test_no_resamples_give_no_interval() -> None:
    assert Bootstrap(0, 0).of_means({"x": [1.0, 2.0]}) == {}
    assert Bootstrap(0, 0).interval(VALUES, lambda means: means[:, 0]) is None


def test_columns_of_different_rows_stand_side_by_side() -> None:
    found = Bootstrap(20, 1).of_means({"short": [0.0, 1.0], "one": [1.0], "long": VALUES[:, 0]})
    assert list(found) == ["short", "long"]
    assert found["long"] == Bootstrap(20, 1).of_means({"long": VALUES[:, 0]})["long"]


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(80, 400))
    held = 0
    for place in range(400):
        low, high = Bootstrap(300, place).of_means({"x": samples[:, place]})["x"]
        held += low <= 3.0 <= high
    assert 0.91 <= held / 400 <= 0.98
