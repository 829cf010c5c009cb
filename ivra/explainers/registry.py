"""Which explainers there are."""

import inspect

from ivra.errors import unknown_name
from ivra.explainers.attention import LastLayerAttention, MeanAttention
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores
from ivra.explainers.explainer import Explainer
from ivra.explainers.gradients import GradientNorm, InputXGradient, IntegratedGradients
from ivra.explainers.module import UntrainedExplainer
from ivra.explainers.perturbation import LIME, KernelSHAP, Occlusion

STATIC: dict[str, type[Explainer]] = {
    explainer.name: explainer
    for explainer in (
        UntrainedExplainer,
        MeanAttention,
        LastLayerAttention,
        GradientNorm,
        InputXGradient,
        IntegratedGradients,
        Occlusion,
        LIME,
        KernelSHAP,
        RandomScores,
    )
}
"""Explainers that need no training, by name."""


CONTROLS: dict[str, type[Explainer]] = {
    explainer.name: explainer for explainer in (RandomScores, TrivialScores, MarkedTokens)
}
"""What students are taught with for comparison (beside nothing at all), by name."""


def static_explainer(name: str, seed: int = 0) -> Explainer:
    """The explainer called ``name``; ``seed`` is that of whatever it draws.

    Raises:
        IvraError: no such name; the choices are listed.
    """
    if name not in STATIC:
        raise unknown_name("explainer", name, list(STATIC))
    return _seeded(STATIC[name], seed)


def control(name: str, seed: int = 0) -> Explainer:
    """The control called ``name``; ``seed`` is that of random scores.

    Raises:
        IvraError: no such name; the choices are listed.
    """
    if name not in CONTROLS:
        raise unknown_name("control", name, list(CONTROLS))
    return _seeded(CONTROLS[name], seed)


def _seeded(kind: type[Explainer], seed: int) -> Explainer:
    if "seed" not in inspect.signature(kind).parameters:
        return kind()
    return kind(seed=seed)  # type: ignore[call-arg]
