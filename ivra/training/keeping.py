"""Validations, and the weights of the best."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ivra.training.state import State, copies_of


class Validation(NamedTuple):
    """A score (higher is better) by which the best iteration is kept, and what is logged.

    ``None`` makes no claim: the latest iteration is kept.
    """

    score: float | None
    terms: dict[str, float]


class BestKeeper:
    """Holds a copy of the parameters at the best validation."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._copies: list[Tensor] = []
        self.best: Validation | None = None
        self.step = 0

    def offer(self, step: int, validation: Validation) -> bool:
        if self.best is not None and not _better(validation.score, self.best.score):
            return False
        self.best, self.step = validation, step
        self._copies = [p.detach().clone() for p in self._parameters]
        return True

    def restore_in_spite(self) -> bool:
        """Restore, and once more if an interrupt falls into it; whether one did."""
        try:
            self.restore()
        except KeyboardInterrupt:
            self.restore()
            return True
        return False

    def restore(self) -> None:
        if self.best is None:
            return
        with torch.no_grad():
            for parameter, copy in zip(self._parameters, self._copies, strict=True):
                parameter.copy_(copy)

    def state_dict(self) -> State:
        best = None if self.best is None else {"score": self.best.score, "terms": self.best.terms}
        return {"step": self.step, "best": best, "copies": list(self._copies)}

    def load_state_dict(self, state: State) -> None:
        self._copies = copies_of(state["copies"], self._parameters)
        best = state["best"]
        self.step = state["step"]
        self.best = None if best is None else Validation(best["score"], best["terms"])


def _better(score: float | None, best: float | None) -> bool:
    """Whether ``score`` takes the place of ``best``; no score and NaN never hold theirs."""
    return score is None or best is None or math.isnan(best) or score > best
