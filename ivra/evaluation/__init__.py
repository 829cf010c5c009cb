"""Evaluation: how good the explanations are, and what the model paid."""

from ivra.evaluation.agreement import plausibility_figures
from ivra.evaluation.answers import answer_columns, answer_figures, answers_against_plain
from ivra.evaluation.aopc import (
    Aopc,
    ImportantTokens,
    ReducedLogits,
    aopc,
    aopc_of,
    cuts,
    delete,
    important_tokens,
    normalised,
    reduced_logits,
)
from ivra.evaluation.aopc_settings import CHOICES, PRESETS, AopcSettings, aopc_settings
from ivra.evaluation.bootstrap import Bootstrap, percentile_interval, resampled_means
from ivra.evaluation.concentration import normalised_entropy, saliency_entropy, support_size
from ivra.evaluation.config import BASELINES, METRICS, EvalConfig
from ivra.evaluation.consistency import batch_correlations, consistency, mean_correlation
from ivra.evaluation.downstream import (
    accuracy_figures,
    against_plain,
    class_rows,
    macro_f1_of_shares,
)
from ivra.evaluation.eraser import EraserScores, Reduced, eraser_scores, rationale_share
from ivra.evaluation.eraser_figures import eraser_figures
from ivra.evaluation.evaluate import evaluate, evaluation_rows, predicted
from ivra.evaluation.gain import AverageRelativeGain, average_relative_gain, relative_gain
from ivra.evaluation.plausibility import (
    Units,
    average_precision,
    hard_rationales,
    iou_f1,
    marked_share,
    plausibility_auc,
    rankings,
    recall_at,
    roc_auc,
    spans,
    token_units,
    word_units,
)
from ivra.evaluation.prediction import TOKEN_BUDGET, packed, predict, token_scores
from ivra.evaluation.significance import PairedTest, paired_test
from ivra.evaluation.simulation import Simulation, StudentPlan, simulation_accuracy

__all__ = [
    "BASELINES",
    "CHOICES",
    "METRICS",
    "PRESETS",
    "TOKEN_BUDGET",
    "Aopc",
    "AopcSettings",
    "AverageRelativeGain",
    "Bootstrap",
    "EraserScores",
    "EvalConfig",
    "ImportantTokens",
    "PairedTest",
    "Reduced",
    "ReducedLogits",
    "Simulation",
    "StudentPlan",
    "Units",
    "accuracy_figures",
    "against_plain",
    "answer_columns",
    "answer_figures",
    "answers_against_plain",
    "aopc",
    "aopc_of",
    "aopc_settings",
    "average_precision",
    "average_relative_gain",
    "batch_correlations",
    "class_rows",
    "consistency",
    "cuts",
    "delete",
    "eraser_figures",
    "eraser_scores",
    "evaluate",
    "evaluation_rows",
    "hard_rationales",
    "important_tokens",
    "iou_f1",
    "macro_f1_of_shares",
    "marked_share",
    "mean_correlation",
    "normalised",
    "normalised_entropy",
    "packed",
    "paired_test",
    "percentile_interval",
    "plausibility_auc",
    "plausibility_figures",
    "predict",
    "predicted",
    "rankings",
    "rationale_share",
    "recall_at",
    "reduced_logits",
    "relative_gain",
    "resampled_means",
    "roc_auc",
    "saliency_entropy",
    "simulation_accuracy",
    "spans",
    "support_size",
    "token_scores",
    "token_units",
    "word_units",
]
