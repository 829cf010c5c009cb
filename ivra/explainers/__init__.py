"""Explainers: the trained module's read-out, and everything it is compared with."""

from ivra.explainers.attention import LastLayerAttention, MeanAttention, ReceivedAttention
from ivra.explainers.controls import RandomScores
from ivra.explainers.explainer import Explainer
from ivra.explainers.gradients import InputXGradient
from ivra.explainers.module import ModuleExplainer, UntrainedExplainer
from ivra.explainers.registry import STATIC, static_explainer

__all__ = [
    "STATIC",
    "Explainer",
    "InputXGradient",
    "LastLayerAttention",
    "MeanAttention",
    "ModuleExplainer",
    "RandomScores",
    "ReceivedAttention",
    "UntrainedExplainer",
    "static_explainer",
]
