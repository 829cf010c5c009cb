"""The paired test against every choice of signs, McNemar's test and scipy's permutations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from ivra.evaluation import paired_test

Sides = tuple[np.ndarray, np.ndarray]


@st.composite
def sides(draw: st.DrawFn, students: int | None = None, most: int = 9) -> Sides:
    shape = (students or draw(st.integers(1, 4)), draw(st.integers(1, most)))
    bits = st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape))
    first, second = (np.array(draw(bits), dtype=bool).reshape(shape) for _ in range(2))
    return first, second


@given(sides())
def test_the_p_value_counts_all_signs(both: Sides) -> None:
    first, second = both
    gaps = (first.astype(int) - second.astype(int)).sum(0).tolist()
    sums = [
        sum(sign * gap for sign, gap in zip(signs, gaps, strict=True))
        for signs in itertools.product((1, -1), repeat=len(gaps))
    ]
    expected = sum(abs(total) >= abs(sum(gaps)) for total in sums) / len(sums)
    found = paired_test(first, second)
    assert found.p_value == pytest.approx(expected, abs=1e-12)
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert (found.wins, found.losses) == (
        sum(gap > 0 for gap in gaps),
        sum(gap < 0 for gap in gaps),
    )


@given(sides(students=1, most=60))
def test_one_student_a_side_is_mcnemars_exact_test(both: Sides) -> None:
    first, second = both
    wins, losses = int((first & ~second).sum()), int((~first & second).sum())
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert paired_test(first, second).p_value == pytest.approx(expected, abs=1e-12)


def test_several_students_agree_with_scipys_permutation_test() -> None:
    generator = np.random.default_rng(3)
    first, second = generator.random((2, 3, 12)) < np.array([0.8, 0.5])[:, None, None]
    theirs = permutation_test(
        (first.sum(0), second.sum(0)),
        lambda a, b, axis: (a - b).sum(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    found = paired_test(first, second)
    assert found.p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found.p_value < 0.2
    swapped = paired_test(second, first)
    assert swapped.p_value == pytest.approx(found.p_value, abs=1e-12)
    assert swapped.difference == -found.difference


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_alike_sides_have_a_p_value_of_one(rows: int) -> None:
    same = np.ones((2, rows), dtype=bool)
    assert paired_test(same, same) == (0.0, 1.0, 0, 0)


def test_many_rows_of_many_students_are_exact_far_into_the_tail() -> None:
    first = np.ones((1, 4000), dtype=bool)
    second = first.copy()
    second[0, :100] = False
    assert paired_test(first, second).p_value == pytest.approx(2.0**-99, rel=1e-9)
    second[0, 100:200] = False
    first[0, 200:320] = False
    expected = binomtest(120, 320).pvalue
    assert paired_test(second, first).p_value == pytest.approx(expected, abs=1e-12)
    five = paired_test(np.repeat(second, 5, 0), np.repeat(first, 5, 0))
    assert five.p_value == pytest.approx(expected, abs=1e-12)  # copies of a student add nothing


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected equal shapes, got \(1, 3\) and \(2, 3\)"):
        paired_test(np.ones((1, 3), dtype=bool), np.ones((2, 3), dtype=bool))
