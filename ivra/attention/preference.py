"""Coefficients that depend on how much each criterion counts.

One module for every trade-off: it is trained under preferences drawn at random, and at inference
a preference chooses among what it has learnt (loss-conditional training: Dosovitskiy and Djolonga
2020, You Only Train Once; interpolated weights: Ramé et al. 2023, arXiv:2306.04488).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ivra.errors import IvraError, unknown_name


class Preference(nn.Module):
    """A point ``p`` of the simplex over criteria; uniform at the start. Not part of the weights."""

    shares: Tensor

    def __init__(self, criteria: Sequence[str]) -> None:
        super().__init__()
        self.criteria = tuple(criteria)
        uniform = torch.full((len(self.criteria),), 1 / len(self.criteria))
        self.register_buffer("shares", uniform, persistent=False)

    def set(self, shares: Mapping[str, float]) -> None:
        """Take ``shares``, divided by their sum; criteria that are not named count nothing.

        Raises:
            IvraError: an unknown criterion, a share below 0, or shares without a sum above 0.
        """
        for name, share in shares.items():
            if name not in self.criteria:
                raise unknown_name("criterion of the preference", name, list(self.criteria))
            if not 0 <= share < math.inf:
                raise IvraError(f"preference {name}={share}: expected a number of at least 0")
        total = sum(shares.values())
        if not total > 0:
            raise IvraError(
                "the preference has no share above 0: expected one at least, as in "
                f"{self.criteria[0]}=1"
            )
        given = [shares.get(name, 0.0) / total for name in self.criteria]
        self.shares.copy_(self.shares.new_tensor(given))


class Shifted(nn.Module):
    """``base + sum_c p_c delta_c`` for the parameter ``base``; ``delta`` starts at 0."""

    def __init__(self, base: Tensor, preference: Preference) -> None:
        super().__init__()
        self.preference = preference
        self.delta = nn.Parameter(base.new_zeros(len(preference.criteria), *base.shape))

    def forward(self, base: Tensor) -> Tensor:
        """The parameter under the present preference."""
        return base + torch.tensordot(self.preference.shares.to(base), self.delta, dims=1)
