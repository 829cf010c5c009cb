"""Evaluation: how good the explanations are, and what the model paid."""

from ivra.evaluation.aopc import Aopc, aopc, cuts, delete
from ivra.evaluation.consistency import consistency
from ivra.evaluation.evaluate import BASELINES, METRICS, EvalConfig, evaluate
from ivra.evaluation.plausibility import plausibility_auc
from ivra.evaluation.prediction import packed, predict, token_scores
from ivra.evaluation.simulation import Simulation, StudentPlan, simulation_accuracy

__all__ = [
    "BASELINES",
    "METRICS",
    "Aopc",
    "EvalConfig",
    "Simulation",
    "StudentPlan",
    "aopc",
    "consistency",
    "cuts",
    "delete",
    "evaluate",
    "packed",
    "plausibility_auc",
    "predict",
    "simulation_accuracy",
    "token_scores",
]
