"""What training goes on from: states of optimisers and parameters, without numbers as keys."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ivra.errors import IvraError, first_line

State = dict[str, Any]
"""What a loop or a part of it goes on from: nested dicts with text keys and lists of tensors,
numbers, text, booleans and ``None``."""
MISFITS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What a state that does not fit is answered with, by Python and by PyTorch."""


def misfit(error: Exception) -> IvraError:
    """A checkpoint that is whole, but not one of this run."""
    return IvraError(
        f"the checkpoint does not fit the run ({first_line(error)}): it is another one's, or was "
        "changed; train anew under another name"
    )


def optimizer_state(optimizer: torch.optim.Optimizer) -> list[list[Any]]:
    """What it knows of every parameter: ``[place, values]``. Rates and the like are not in it."""
    return [list(pair) for pair in optimizer.state_dict()["state"].items()]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: list[list[Any]]) -> None:
    """Give ``optimizer`` what :func:`optimizer_state` took from one of the same parameters.

    Raises:
        ValueError: a value does not have the shape of its parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, values in state:
        for value in values.values():
            if value.dim() and value.shape != parameters[place].shape:
                raise ValueError(f"{tuple(value.shape)} is not {tuple(parameters[place].shape)}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"param_groups": groups, "state": dict(state)})


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
