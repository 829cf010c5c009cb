"""What training goes on from: states of optimisers and parameters, without numbers as keys."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Any]
"""What a loop or a part of it goes on from: nested dicts with text keys and lists of tensors,
numbers, text, booleans and ``None``."""


def optimizer_state(optimizer: torch.optim.Optimizer) -> State:
    """Its state as a :data:`State`, in which no key is a number."""
    state = optimizer.state_dict()
    return {
        "groups": state["param_groups"],
        "state": [list(pair) for pair in state["state"].items()],
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: State) -> None:
    """Give ``optimizer`` what :func:`optimizer_state` took from one of the same parameters."""
    pairs = dict(state["state"])
    optimizer.load_state_dict({"param_groups": state["groups"], "state": pairs})


@torch.no_grad()
def copy_into(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Write ``values`` into ``parameters``, one by one.

    Raises:
        ValueError: there are more of one than of the other, or the shapes differ.
    """
    for parameter, value in zip(parameters, values, strict=True):
        if parameter.shape != value.shape or parameter.dtype != value.dtype:
            raise ValueError(f"{tuple(value.shape)} does not fit {tuple(parameter.shape)}")
        parameter.copy_(value)


def copies_of(values: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """``values`` beside the ``parameters`` that they are values of; none or all."""
    if not values:
        return []
    made = [p.detach().clone() for p in parameters]
    copy_into(made, values)
    return made


class Mean:
    """The mean of the parameters over the steps that it was shown (Polyak and Juditsky 1992)."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._means: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self) -> None:
        self._count += 1
        if not self._means:
            self._means = [p.detach().clone() for p in self._parameters]
        for mean, parameter in zip(self._means, self._parameters, strict=True):
            mean.lerp_(parameter, 1 / self._count)

    @torch.no_grad()
    def take(self) -> None:
        """Put the mean in the place of the parameters; nothing if it was shown no step."""
        if self._means:
            for mean, parameter in zip(self._means, self._parameters, strict=True):
                parameter.copy_(mean)

    def state_dict(self) -> State:
        return {"count": self._count, "means": list(self._means)}

    def load_state_dict(self, state: State) -> None:
        self._count = state["count"]
        self._means = copies_of(state["means"], self._parameters)
