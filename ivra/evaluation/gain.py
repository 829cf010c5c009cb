"""Average relative gain: what many measures gain or lose together against a baseline.

Ye et al. 2021 (CrossFit); used for mixed criteria by Xie et al. 2024 (IvRA), figure 5.
"""

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

LEAST = 1e-6
"""A baseline nearer to 0 than this has no relative gain."""

Better = Literal["higher", "lower"]


class AverageRelativeGain(NamedTuple):
    """``value`` is the mean of ``gains``, or ``None`` (undefined) for the ``reason``."""

    value: float | None
    gains: dict[str, float | None]
    reason: str | None


def relative_gain(value: float, baseline: float, better: Better = "higher") -> float | None:
    """``(m - b) / |b|``, of the other sign where lower is better; a share, above 0 is a gain.

    ``|b|`` keeps the sign right for baselines below 0. ``None`` (undefined) where ``|b| < 1e-6``
    or one of both is not finite.
    """
    if not (math.isfinite(value) and math.isfinite(baseline)) or abs(baseline) < LEAST:
        return None
    gain = (value - baseline) / abs(baseline)
    return gain if better == "higher" else -gain


def average_relative_gain(
    values: Mapping[str, float | None],
    baselines: Mapping[str, float | None],
    better: Mapping[str, Better],
) -> AverageRelativeGain:
    """``ARG = mean_t (m_t - b_t) / |b_t|`` over the measures ``t``, the sign of each flipped where
    lower is better.

    A measure is undefined where ``|b_t| < 1e-6``, or where its value or baseline is ``None`` or
    not finite; then the mean is undefined too, and the reason names the measure. Nothing is left
    out silently.

    Args:
        values: ``m_t`` by the name of the measure.
        baselines: ``b_t``, of the same names.
        better: which way each is better.

    Raises:
        ValueError: the names differ.
    """
    if not set(values) == set(baselines) == set(better):
        raise ValueError(
            f"expected the same measures in all three, got {sorted(values)}, {sorted(baselines)} "
            f"and {sorted(better)}"
        )
    gains: dict[str, float | None] = {}
    reasons = []
    for name, value in values.items():
        baseline = baselines[name]
        known = value is not None and baseline is not None
        gains[name] = relative_gain(value, baseline, better[name]) if known else None  # type: ignore[arg-type]
        if gains[name] is None:
            near = known and abs(baseline) < LEAST  # type: ignore[arg-type]
            why = f"its baseline {baseline:g} is nearer to 0 than {LEAST:g}" if near else None
            reasons.append(f"{name}: {why or 'it has no value on one side'}")
    defined = [gain for gain in gains.values() if gain is not None]
    if reasons or not defined:
        return AverageRelativeGain(None, gains, "; ".join(reasons) or "no measure was given")
    return AverageRelativeGain(math.fsum(defined) / len(defined), gains, None)
