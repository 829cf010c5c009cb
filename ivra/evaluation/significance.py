"""A paired test between two models, or two groups of students, on the same rows.

McNemar 1947; Noreen 1989 (randomisation); Dror et al. 2018 recommend both for paired accuracies.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]
"""Which rows a student gets right, ``(students, rows)``."""


class PairedTest(NamedTuple):
    """``difference`` of the mean accuracies (first - second), its two-sided ``p_value``, and on
    how many rows the first has more (``wins``) or fewer (``losses``) right answers."""

    difference: float
    p_value: float
    wins: int
    losses: int


def paired_test(first: Correct, second: Correct) -> PairedTest:
    """Exact randomisation test of equal accuracy, with the row as the unit.

    With ``d_i = sum_s first[s, i] - second[s, i]`` over the students ``s``, each row's ``d_i``
    keeps or changes its sign with probability 1/2 if the two sides are alike; ``p`` is the chance
    that ``|sum_i +-d_i| >= |sum_i d_i|``. For one student a side this is McNemar's exact test.
    Answers of several students to one row are not independent and are not counted as if they
    were; the students themselves are taken as given. No sampling: the distribution of the sum is
    the inverse Fourier transform of ``prod_i cos(t d_i)``, right to about 1e-12.

    Args:
        first: right answers of one side, students of the same seeds in the same order.
        second: of the other, of the same shape.

    Returns:
        ``p_value`` in ``(0, 1]``, 1 where no row differs (also for no rows).

    Raises:
        ValueError: shapes that differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected equal shapes, got {first.shape} and {second.shape}")
    students, rows = first.shape
    differences = first.sum(0, dtype=np.int64) - second.sum(0, dtype=np.int64)
    total = int(differences.sum())
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    reach = int((sizes * counts).sum())
    angles = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    transform = np.ones_like(angles)
    for size, count in zip(sizes, counts, strict=True):
        transform *= np.cos(size * angles) ** count
    chances = np.fft.ifft(transform).real.clip(0)  # of the sums 0, 1, ..., reach, -reach, ..., -1
    sums = np.concatenate([np.arange(reach + 1), np.arange(-reach, 0)])
    p_value = float(chances[np.abs(sums) >= abs(total)].sum())
    least = 2.0 ** (1 - min(1000, int((differences != 0).sum())))  # all signs alike
    return PairedTest(
        difference=total / max(1, students * rows),
        p_value=min(1.0, max(p_value, least)),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
    )
