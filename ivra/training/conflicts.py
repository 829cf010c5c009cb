"""Which criteria pull the parameters in opposite directions, step by step and over a run."""

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn


class Gradients(TypedDict):
    """Of one step: the L2 norm of every criterion's own gradient, and the cosine of each pair's.

    Pairs are called ``"comp,suff"``, in the order of the criteria; the cosine is ``None`` where
    one of both gradients is 0. Weights and scales are not in it.
    """

    norms: dict[str, float]
    cosines: dict[str, float | None]


class Conflict(NamedTuple):
    """Two criteria over a run: mean cosine, the steps that define one, the share below 0."""

    criteria: tuple[str, str]
    cosine: float
    steps: int
    against: float


def gradient_rows(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
    """The gradient of each loss in all ``parameters``, one after the other: ``(losses, P)``.

    The graph is kept. A loss that does not depend on a parameter has zeros there.
    """
    rows = []
    for loss in losses:
        if loss.requires_grad:
            found = torch.autograd.grad(
                loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        else:
            found = tuple(torch.zeros_like(p) for p in parameters)
        rows.append(torch.cat([slope.flatten() for slope in found]))
    return torch.stack(rows)


def described(names: Sequence[str], rows: Tensor) -> Gradients:
    """Norms and cosines of the rows of :func:`gradient_rows`, called ``names``."""
    wide = rows.double()
    norms = wide.norm(dim=1)
    products = wide @ wide.T
    cosines: dict[str, float | None] = {}
    for (i, left), (j, right) in itertools.combinations(enumerate(names), 2):
        length = float(norms[i] * norms[j])
        cosines[f"{left},{right}"] = float(products[i, j]) / length if length > 0 else None
    return {"norms": dict(zip(names, norms.tolist(), strict=True)), "cosines": cosines}


def mean_gradients(found: Sequence[Gradients]) -> Gradients:
    """The mean of several, as of the batches that make one step."""
    if len(found) == 1:
        return found[0]
    return {
        "norms": {k: statistics.fmean(one["norms"][k] for one in found) for k in found[0]["norms"]},
        "cosines": {
            pair: _mean([one["cosines"][pair] for one in found]) for pair in found[0]["cosines"]
        },
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def conflicts(steps: Iterable[Mapping[str, float | None]]) -> list[Conflict]:
    """Every pair over a run, the worst first, from the cosines of its steps.

    A pair that no step defines is left out.
    """
    values: dict[str, list[float]] = {}
    for cosines in steps:
        for pair, cosine in cosines.items():
            if cosine is not None:
                values.setdefault(pair, []).append(cosine)
    found = []
    for pair, own in values.items():
        left, _, right = pair.partition(",")
        against = sum(value < 0 for value in own) / len(own)
        found.append(Conflict((left, right), statistics.fmean(own), len(own), against))
    return sorted(found, key=lambda one: one.cosine)


def conflict_line(found: Sequence[Conflict]) -> str | None:
    """``comp and cons fought: mean cosine -0.31 over 60 steps``; ``None`` without a pair.

    All pairs whose mean cosine is below 0 fought. If none did, the line names the pair that came
    nearest to it.
    """
    if not found:
        return None
    fought = [one for one in found if one.cosine < 0]
    if fought:
        return "; ".join(
            f"{one.criteria[0]} and {one.criteria[1]} fought: mean cosine {one.cosine:.2f} over "
            f"{one.steps} steps"
            for one in fought
        )
    least = found[0]
    return (
        f"no criteria fought: least mean cosine {least.cosine:.2f} ({least.criteria[0]} and "
        f"{least.criteria[1]}) over {least.steps} steps"
    )
