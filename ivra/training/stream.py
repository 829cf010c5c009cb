"""Endless streams that know where they are."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Endless(Iterator[_T], Generic[_T]):
    """What ``epoch(0)``, ``epoch(1)``, ``epoch(2)``, ... give, one after another.

    ``epoch(n)`` must give the same whenever it is called, and something.
    """

    def __init__(self, epoch: Callable[[int], Iterator[_T]]) -> None:
        self._epoch = epoch
        self._begin(0)

    def _begin(self, number: int) -> None:
        self._number, self._given = number, 0
        self._rest: Iterator[_T] | None = None

    def __next__(self) -> _T:
        while True:
            if self._rest is None:
                self._rest = self._epoch(self._number)
            for found in self._rest:
                self._given += 1
                return found
            self._begin(self._number + 1)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how much of it was given."""
        return {"epoch": self._number, "given": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to the place of ``state``; what of that epoch was given is passed over.

        Raises:
            ValueError: the epoch does not have so much.
        """
        self._begin(state["epoch"])
        self._rest = self._epoch(self._number)
        for _ in range(state["given"]):
            if next(self._rest, None) is None:
                raise ValueError(f"epoch {self._number} ends before {state['given']}")
        self._given = state["given"]


def endless(epoch: Callable[[int], Iterator[_T]]) -> Endless[_T]:
    """The batches of epoch 0, 1, 2, ... one after another; ``epoch(n)`` shuffles by ``n``."""
    return Endless(epoch)
