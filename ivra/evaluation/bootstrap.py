"""Confidence intervals by the bootstrap over rows.

Efron and Tibshirani 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
"""Share of resamples that an interval holds."""
CHUNK = 2_000_000
"""Draws made at a time."""
KEPT = 50_000_000
"""Up to so many draws are kept for the next figure of the same rows, a byte each."""

Interval = tuple[float, float]
Floats = NDArray[np.float64]


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Means of ``values (rows, figures)`` over ``resamples`` draws of rows with replacement.

    Every resample has as many rows as there are; all figures share the draws, so that their
    means are pairs. Draw ``b`` of a seed is ``default_rng(seed).integers(0, rows, rows)`` in turn.

    Returns:
        ``(resamples, figures)``.
    """
    rows = len(values)
    make = _kept if rows * resamples <= KEPT else _draws
    means = [times.astype(np.float64) @ values / rows for times in make(rows, resamples, seed)]
    return np.concatenate(means)


def _draws(rows: int, resamples: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """How often each resample draws each row, ``(some resamples, rows)`` at a time.

    A row is expected once; more than 255 times does not happen.
    """
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // rows)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = generator.integers(0, rows, (count, rows)) + rows * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * rows)
        yield times.reshape(count, rows).astype(np.uint8)


@lru_cache(maxsize=4)
def _kept(rows: int, resamples: int, seed: int) -> list[NDArray[np.uint8]]:
    return list(_draws(rows, resamples, seed))


def percentile_interval(samples: Floats) -> Interval:
    """The 2.5th and 97.5th percentile of ``samples (resamples,)``, interpolated linearly."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


class Bootstrap(NamedTuple):
    """How intervals are drawn: the number of ``resamples`` (0 for no intervals) and their seed."""

    resamples: int
    seed: int

    def interval(self, values: Floats, statistic: Callable[[Floats], Floats]) -> Interval | None:
        """A 95 % interval of a statistic of the means of ``values (rows, figures)``.

        ``statistic`` maps ``(resamples, figures)`` to ``(resamples,)``. ``None`` for fewer than
        two rows and for no resamples.
        """
        if self.resamples < 1 or len(values) < 2:
            return None
        return percentile_interval(statistic(resampled_means(values, *self)))

    def of_means(self, columns: Mapping[str, Sequence[float] | Floats]) -> dict[str, Interval]:
        """A 95 % interval of the mean of every column, over its rows.

        Columns of the same length share the resamples. A column of fewer than two rows has no
        interval and is left out; so are all without resamples.
        """
        arrays = {key: np.asarray(column, dtype=np.float64) for key, column in columns.items()}
        found: dict[str, Interval] = {}
        for rows in sorted({len(array) for array in arrays.values()}):
            if rows < 2 or self.resamples < 1:
                continue
            alike = [key for key, array in arrays.items() if len(array) == rows]
            means = resampled_means(np.stack([arrays[key] for key in alike], axis=1), *self)
            found |= {key: percentile_interval(means[:, i]) for i, key in enumerate(alike)}
        return {key: found[key] for key in columns if key in found}
