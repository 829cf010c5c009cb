"""Explainers: the trained module's read-out, and everything it is compared with."""

from ivra.explainers.attention import LastLayerAttention, MeanAttention, ReceivedAttention
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores
from ivra.explainers.explainer import Explainer
from ivra.explainers.gradients import GradientNorm, InputXGradient, IntegratedGradients
from ivra.explainers.module import ModuleExplainer, UntrainedExplainer
from ivra.explainers.perturbation import LIME, KernelSHAP, Occlusion
from ivra.explainers.registry import CONTROLS, STATIC, control, static_explainer
from ivra.tasks import trivial_saliency

__all__ = [
    "CONTROLS",
    "LIME",
    "STATIC",
    "Explainer",
    "GradientNorm",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "LastLayerAttention",
    "MarkedTokens",
    "MeanAttention",
    "ModuleExplainer",
    "Occlusion",
    "RandomScores",
    "ReceivedAttention",
    "TrivialScores",
    "UntrainedExplainer",
    "control",
    "static_explainer",
    "trivial_saliency",
]
