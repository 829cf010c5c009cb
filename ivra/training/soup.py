"""Warm starts: a module whose weights come from those of finished runs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ivra.attention import InterpretableAttention, Shifted
from ivra.errors import IvraError
from ivra.losses import parse_criteria
from ivra.training.run import load_run

_SHAPE = ("sizes", "levels", "reading", "coefficients_norm", "saliency_norm")


@torch.no_grad()
def start_from(module: InterpretableAttention, runs: Sequence[str | Path]) -> None:
    """Give ``module`` the mean of the weights of the modules of ``runs``.

    A weight average of models that were trained apart from one start is as good as any of them
    where they lie in one basin (Wortsman et al. 2022, Model soups, arXiv:2203.05482). A module that
    knows preferences gets for each criterion the weights of the run that was trained for it
    alone: with the mean as ``base`` and ``delta_c`` the way from there to criterion ``c``, it is
    that run where ``c`` alone is preferred, and between them their interpolation (Ramé et al.
    2023, Rewarded soups, arXiv:2306.04488).

    Raises:
        IvraError: no run there, one whose module has another shape, or for preferences one that
            was not trained for one of their criteria alone.
    """
    found: list[dict[str, Tensor]] = []
    alone: dict[str, int] = {}
    for path in runs:
        run = load_run(path)
        _check_shape(module, run.module, str(path))
        names = [weighted.name for weighted in parse_criteria(run.config.criteria)]
        criterion = names[0]
        if module.preferences and (len(names) > 1 or criterion not in module.preferences):
            raise IvraError(
                f"{path} was trained for {run.config.criteria}: expected runs of one criterion "
                f"each, of {', '.join(module.preferences)}"
            )
        alone[criterion] = len(found)
        found.append(dict(run.module.named_parameters()))
    for name in found[0]:
        values = torch.stack([own[name] for own in found])
        mean = values.mean(0)
        if not module.preferences:
            module.get_parameter(name).copy_(mean)
            continue
        module.get_parameter(f"parametrizations.{name}.original").copy_(mean)
        shifted = module.get_submodule(f"parametrizations.{name}.0")
        assert isinstance(shifted, Shifted)
        for criterion, place in alone.items():
            shifted.delta[module.preferences.index(criterion)].copy_(values[place] - mean)


def _check_shape(module: InterpretableAttention, other: InterpretableAttention, path: str) -> None:
    wanted, got = module.config(), other.config()
    if other.preferences:
        raise IvraError(
            f"{path} was trained with combine preference: expected runs with one trade-off each"
        )
    for key in _SHAPE:
        if wanted[key] != got[key]:
            raise IvraError(
                f"{path} has a module of {key} {_said(got[key])}: expected {_said(wanted[key])} "
                "as this run has"
            )


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {own}" for key, own in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
