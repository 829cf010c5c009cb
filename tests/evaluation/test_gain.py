"""Average relative gain: worked by hand, with its signs and where it is undefined."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivra.evaluation import average_relative_gain, relative_gain


def test_the_example_of_crossfit() -> None:
    """Ye et al. 2021: from 50 to 70 and from 40 to 30 are 40 % and -25 %, on average 7.5 %."""
    found = average_relative_gain(
        {"a": 70.0, "b": 30.0}, {"a": 50.0, "b": 40.0}, {"a": "higher", "b": "higher"}
    )
    assert found.value == pytest.approx(0.075, abs=1e-15)
    assert found.gains == pytest.approx({"a": 0.4, "b": -0.25})
    assert found.reason is None


@pytest.mark.parametrize(
    ("value", "baseline", "better", "gain"),
    [
        (0.3, 0.2, "higher", 0.5),
        (0.1, 0.2, "lower", 0.5),
        (0.3, 0.2, "lower", -0.5),
        (-0.1, -0.2, "higher", 0.5),  # less below 0 is a gain, whatever b's sign
        (-0.3, -0.2, "lower", 0.5),
        (0.1, -0.2, "higher", 1.5),
        (0.2, 0.2, "lower", 0.0),
        (1.0, 1e-6, "higher", 999_999.0),
        (1.0, 9.9e-7, "higher", None),
        (1.0, 0.0, "lower", None),
        (1.0, -9.9e-7, "higher", None),
        (math.nan, 1.0, "higher", None),
        (1.0, math.inf, "higher", None),
    ],
)
def test_gains_point_up_where_the_measure_got_better(
    value: float, baseline: float, better: str, gain: float | None
) -> None:
    found = relative_gain(value, baseline, better)  # type: ignore[arg-type]
    assert found == (None if gain is None else pytest.approx(gain, rel=1e-9))


measures = st.lists(
    st.tuples(
        st.floats(-10, 10),
        st.floats(-10, 10).filter(lambda b: abs(b) > 1e-3),
        st.sampled_from(["higher", "lower"]),
    ),
    min_size=1,
    max_size=6,
)


@given(measures)
def test_the_mean_is_that_of_exact_fractions(given_: list[tuple[float, float, str]]) -> None:
    columns = [dict(enumerate(column)) for column in zip(*given_, strict=True)]
    values, baselines, better = ({str(k): v for k, v in c.items()} for c in columns)
    total = Fraction(0)
    for value, baseline, way in given_:
        gain = (Fraction(value) - Fraction(baseline)) / abs(Fraction(baseline))
        total += gain if way == "higher" else -gain
    found = average_relative_gain(values, baselines, better)
    assert found.value == pytest.approx(float(total / len(given_)), rel=1e-9, abs=1e-9)


def test_one_undefined_measure_makes_the_mean_undefined_and_says_which() -> None:
    better = {"comp": "higher", "suff": "lower", "cons": "higher"}
    found = average_relative_gain(
        {"comp": 0.3, "suff": 0.1, "cons": None}, {"comp": 0.2, "suff": 1e-9, "cons": 0.5}, better
    )
    assert found.value is None
    assert found.gains == {"comp": pytest.approx(0.5), "suff": None, "cons": None}
    assert found.reason == (
        "suff: its baseline 1e-09 is nearer to 0 than 1e-06; cons: it has no value on one side"
    )


def test_no_measure_has_no_gain() -> None:
    assert average_relative_gain({}, {}, {}) == (None, {}, "no measure was given")


def test_names_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="expected the same measures in all three"):
        average_relative_gain({"a": 1.0}, {"b": 1.0}, {"a": "higher"})
