"""Explainers: the trained module's read-out, and everything it is compared with."""

from ivra.explainers.attention import (
    AttentionRollout,
    HeadAttention,
    LastLayerAttention,
    MeanAttention,
    PooledAttention,
    ReceivedAttention,
)
from ivra.explainers.baselines import Baseline, baseline_embeddings
from ivra.explainers.conductance import LayerConductance
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores
from ivra.explainers.deeplift import DeepLIFT
from ivra.explainers.explainer import BATCH_TOKENS, Explainer, check_scores
from ivra.explainers.gradients import GradientNorm, InputXGradient, IntegratedGradients
from ivra.explainers.module import ModuleExplainer, UntrainedExplainer
from ivra.explainers.perturbation import LIME, KernelSHAP, Occlusion
from ivra.explainers.projection import PROJECTIONS, to_simplex
from ivra.explainers.registry import (
    CONTROLS,
    STATIC,
    KnownExplainer,
    check_explainers,
    control,
    explainer_options,
    known_explainers,
    static_explainer,
)
from ivra.tasks import trivial_saliency

__all__ = [
    "BATCH_TOKENS",
    "CONTROLS",
    "LIME",
    "PROJECTIONS",
    "STATIC",
    "AttentionRollout",
    "Baseline",
    "DeepLIFT",
    "Explainer",
    "GradientNorm",
    "HeadAttention",
    "InputXGradient",
    "IntegratedGradients",
    "KernelSHAP",
    "KnownExplainer",
    "LastLayerAttention",
    "LayerConductance",
    "MarkedTokens",
    "MeanAttention",
    "ModuleExplainer",
    "Occlusion",
    "PooledAttention",
    "RandomScores",
    "ReceivedAttention",
    "TrivialScores",
    "UntrainedExplainer",
    "baseline_embeddings",
    "check_explainers",
    "check_scores",
    "control",
    "explainer_options",
    "known_explainers",
    "static_explainer",
    "to_simplex",
    "trivial_saliency",
]
