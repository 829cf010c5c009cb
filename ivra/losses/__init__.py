"""Criteria: what an explanation is trained for. Pure maths over a view, never a model."""

from ivra.losses.comprehensiveness import Comprehensiveness, comprehensiveness_loss
from ivra.losses.consistency import (
    Consistency,
    batch_consistency,
    clustering_loss,
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
from ivra.losses.divergence import (
    DIVERGENCES,
    Divergence,
    RowDivergence,
    fenchel_young,
    js_divergence,
    kl_divergence,
    mixed,
    pairwise_fenchel_young,
    pairwise_js,
    pairwise_kl,
    row_divergence,
    squared_distances,
)
from ivra.losses.fidelity import Fidelity, fidelity_sides, thinned_texts
from ivra.losses.options import Option
from ivra.losses.plausibility import Plausibility, plausibility_loss, row_auc
from ivra.losses.registry import Known, Weighted, check_options, known_criteria, parse_criteria
from ivra.losses.removal import prediction_change, probability_of
from ivra.losses.simulatability import (
    Simulatability,
    entropy_share,
    fixed_sharpness,
    hypergradient_surrogate,
)
from ivra.losses.spearman import average_ranks, spearman
from ivra.losses.student import Guided, Hypergradient, LookAhead, Plan, Student
from ivra.losses.sufficiency import Sufficiency, sufficiency_loss
from ivra.losses.topk import CUT_GRADIENTS, TOPK_GRADIENTS, sampled_loss, soft_top_k, top_k

__all__ = [
    "AOPC_BINS",
    "CUT_GRADIENTS",
    "DIVERGENCES",
    "TOPK_GRADIENTS",
    "Comprehensiveness",
    "Consistency",
    "Criterion",
    "Derivative",
    "Divergence",
    "Fidelity",
    "Guided",
    "Hypergradient",
    "Known",
    "LookAhead",
    "Option",
    "Plan",
    "Plausibility",
    "RowDivergence",
    "Setup",
    "Simulatability",
    "Student",
    "Sufficiency",
    "Terms",
    "View",
    "Weighted",
    "average_ranks",
    "batch_consistency",
    "check_options",
    "check_terms",
    "clustering_loss",
    "comprehensiveness_loss",
    "consistency_loss",
    "entropy_share",
    "fenchel_young",
    "fidelity_sides",
    "fixed_sharpness",
    "hidden_distances",
    "hypergradient_surrogate",
    "js_divergence",
    "kl_divergence",
    "known_criteria",
    "mixed",
    "pairwise_fenchel_young",
    "pairwise_js",
    "pairwise_kl",
    "parse_criteria",
    "plausibility_loss",
    "prediction_change",
    "probability_of",
    "row_auc",
    "row_divergence",
    "saliency_divergences",
    "sampled_loss",
    "scale_free_consistency_loss",
    "soft_top_k",
    "spearman",
    "squared_distances",
    "sufficiency_loss",
    "thinned_texts",
    "top_k",
]
