"""What an evaluation measures, and on which rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ivra.errors import IvraError, unknown_name
from ivra.evaluation.aopc_settings import OURS, AopcSettings
from ivra.evaluation.prediction import TOKEN_BUDGET
from ivra.explainers import BATCH_TOKENS, CONTROLS, check_explainers

METRICS = ("accuracy", "aopc", "sim", "cons", "plausibility", "entropy")
BASELINES = ("untrained", "attention", "attention-last", "random")


@dataclass(frozen=True)
class EvalConfig:
    """What to measure, and on which rows.

    Args:
        metrics: of :data:`METRICS`; empty means all that the data allows.
        data: rows to judge on (default: the run's own data).
        split: the part of them, where the source has parts.
        rows: at most this many rows.
        explainers: what the trained module stands beside, with options where one has them
            (``"lime:samples=100:seed=1"``); results name them as they are given here.
        students: how many students simulate, for each explainer.
        student_rows: rows each of them learns from.
        student_epochs: passes over those rows (default: 8, or 30 for a tiny model).
        controls: what further students are taught with, beside those taught with nothing
            (default: random scores, the trivial leak of the label and, where training rows carry
            them, the true rationales).
        untaught: whether students that no explanation teaches (the control ``none``) learn too:
            they are the same whatever is explained.
        recall_k: numbers of tokens (or words) for recall@k, beside the number marked.
        resamples: of rows for the bootstrap intervals; 0 for none.
        seed: of the students, the random scores and the bootstrap.
        aopc: every choice of comprehensiveness and sufficiency.
        token_budget: tokens of a batch of predictions, padding included.
        explain_batch_tokens: tokens of a batch of an explainer, padding included and with the
            copies of rows that it makes; no figure depends on it.
        preference: how much each criterion counts, of a run that was trained with ``combine``
            preference (default: all alike).
    """

    metrics: tuple[str, ...] = ()
    data: str | None = None
    split: str = "test"
    rows: int | None = None
    explainers: tuple[str, ...] = BASELINES
    students: int = 3
    student_rows: int = 500
    student_epochs: float | None = None
    controls: tuple[str, ...] | None = None
    untaught: bool = True
    recall_k: tuple[int, ...] = (5,)
    resamples: int = 2000
    seed: int = 0
    aopc: AopcSettings = OURS
    token_budget: int = TOKEN_BUDGET
    explain_batch_tokens: int = BATCH_TOKENS
    preference: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown_name("metric", metric, list(METRICS))
        for name in ("students", "student_rows", "token_budget", "explain_batch_tokens"):
            if getattr(self, name) < 1:
                raise IvraError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.rows is not None and self.rows < 1:
            raise IvraError(f"rows is {self.rows}: expected at least 1")
        check_explainers(self.explainers)
        for name in self.controls or ():
            if name not in CONTROLS:
                raise unknown_name("control", name, list(CONTROLS))
        for k in self.recall_k:
            if k < 1:
                raise IvraError(f"recall_k has {k}: expected numbers of tokens, at least 1")
        if not 0 <= self.seed < 2**32:
            raise IvraError(f"seed is {self.seed}: expected a number from 0 to {2**32 - 1}")
        self._check_amounts()

    def _check_amounts(self) -> None:
        if self.resamples < 0:
            raise IvraError(f"resamples is {self.resamples}: expected 0 or more")
        epochs = self.student_epochs
        if epochs is not None and not 0 < epochs < math.inf:
            raise IvraError(f"student_epochs is {epochs}: expected more than 0")


DEFAULTS = EvalConfig()
"""All that the data allows, on its test rows."""
