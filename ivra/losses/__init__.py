"""Criteria: what an explanation is trained for. Pure maths over a view, never a model."""

from ivra.losses.comprehensiveness import Comprehensiveness, comprehensiveness_loss
from ivra.losses.consistency import (
    Consistency,
    batch_consistency,
    consistency_loss,
    hidden_distances,
    saliency_divergences,
    scale_free_consistency_loss,
)
from ivra.losses.criterion import (
    AOPC_BINS,
    Criterion,
    Derivative,
    Setup,
    Terms,
    View,
    check_terms,
)
from ivra.losses.divergence import kl_divergence, mixed, pairwise_kl
from ivra.losses.registry import Known, Weighted, known_criteria, parse_criteria
from ivra.losses.removal import probability_of
from ivra.losses.simulatability import Simulatability, fixed_sharpness, hypergradient_surrogate
from ivra.losses.spearman import average_ranks, spearman
from ivra.losses.student import Hypergradient, LookAhead, Plan, Student
from ivra.losses.sufficiency import Sufficiency, sufficiency_loss
from ivra.losses.topk import TOPK_GRADIENTS, soft_top_k, top_k

__all__ = [
    "AOPC_BINS",
    "TOPK_GRADIENTS",
    "Comprehensiveness",
    "Consistency",
    "Criterion",
    "Derivative",
    "Hypergradient",
    "Known",
    "LookAhead",
    "Plan",
    "Setup",
    "Simulatability",
    "Student",
    "Sufficiency",
    "Terms",
    "View",
    "Weighted",
    "average_ranks",
    "batch_consistency",
    "check_terms",
    "comprehensiveness_loss",
    "consistency_loss",
    "fixed_sharpness",
    "hidden_distances",
    "hypergradient_surrogate",
    "kl_divergence",
    "known_criteria",
    "mixed",
    "pairwise_kl",
    "parse_criteria",
    "probability_of",
    "saliency_divergences",
    "scale_free_consistency_loss",
    "soft_top_k",
    "spearman",
    "sufficiency_loss",
    "top_k",
]
