"""Evaluation: how good the explanations are, and what the model paid."""

from ivra.evaluation.aopc import Aopc, aopc, cuts, delete
from ivra.evaluation.consistency import consistency
from ivra.evaluation.eraser import EraserScores, Reduced, eraser_scores, rationale_share
from ivra.evaluation.eraser_figures import eraser_figures
from ivra.evaluation.evaluate import BASELINES, METRICS, EvalConfig, evaluate, evaluation_rows
from ivra.evaluation.plausibility import plausibility_auc
from ivra.evaluation.prediction import packed, predict, token_scores
from ivra.evaluation.simulation import Simulation, StudentPlan, simulation_accuracy

__all__ = [
    "BASELINES",
    "METRICS",
    "Aopc",
    "EraserScores",
    "EvalConfig",
    "Reduced",
    "Simulation",
    "StudentPlan",
    "aopc",
    "consistency",
    "cuts",
    "delete",
    "eraser_figures",
    "eraser_scores",
    "evaluate",
    "evaluation_rows",
    "packed",
    "plausibility_auc",
    "predict",
    "rationale_share",
    "simulation_accuracy",
    "token_scores",
]
