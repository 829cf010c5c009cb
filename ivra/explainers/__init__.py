"""Explainers: the trained module's read-out, and everything it is compared with."""

from ivra.explainers.attention import LastLayerAttention, MeanAttention, ReceivedAttention
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores, trivial_saliency
from ivra.explainers.explainer import Explainer
from ivra.explainers.gradients import InputXGradient
from ivra.explainers.module import ModuleExplainer, UntrainedExplainer
from ivra.explainers.registry import CONTROLS, STATIC, control, static_explainer

__all__ = [
    "CONTROLS",
    "STATIC",
    "Explainer",
    "InputXGradient",
    "LastLayerAttention",
    "MarkedTokens",
    "MeanAttention",
    "ModuleExplainer",
    "RandomScores",
    "ReceivedAttention",
    "TrivialScores",
    "UntrainedExplainer",
    "control",
    "static_explainer",
    "trivial_saliency",
]
