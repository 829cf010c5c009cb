"""Which explainers there are."""

from ivra.errors import unknown_name
from ivra.explainers.attention import LastLayerAttention, MeanAttention
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores
from ivra.explainers.explainer import Explainer
from ivra.explainers.gradients import InputXGradient
from ivra.explainers.module import UntrainedExplainer

STATIC: dict[str, type[Explainer]] = {
    explainer.name: explainer
    for explainer in (
        UntrainedExplainer,
        MeanAttention,
        LastLayerAttention,
        InputXGradient,
        RandomScores,
    )
}
"""Explainers that need no training, by name."""


CONTROLS: dict[str, type[Explainer]] = {
    explainer.name: explainer for explainer in (RandomScores, TrivialScores, MarkedTokens)
}
"""What students are taught with for comparison (beside nothing at all), by name."""


def static_explainer(name: str, seed: int = 0) -> Explainer:
    """The explainer called ``name``; ``seed`` is that of random scores.

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
    return RandomScores(seed) if kind is RandomScores else kind()
