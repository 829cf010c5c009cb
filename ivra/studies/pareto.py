"""Which of many points no other is better than."""

from collections.abc import Sequence


def dominates(point: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``point`` is at least as good everywhere and better somewhere; higher is better."""
    pairs = list(zip(point, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def pareto_front(points: Sequence[Sequence[float]]) -> list[bool]:
    """For each point whether no other dominates it; of equal points all are on the front.

    Args:
        points: a list of coordinates each, higher is better in all of them.

    Raises:
        ValueError: points of different lengths.
    """
    return [not any(dominates(other, point) for other in points) for point in points]
