"""Which explainers there are."""

from ivra.errors import unknown_name
from ivra.explainers.attention import LastLayerAttention, MeanAttention
from ivra.explainers.controls import RandomScores
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


def static_explainer(name: str) -> Explainer:
    """The explainer called ``name``.

    Raises:
        IvraError: no such name; the choices are listed.
    """
    if name not in STATIC:
        raise unknown_name("explainer", name, list(STATIC))
    return STATIC[name]()
