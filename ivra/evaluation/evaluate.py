"""``evaluate``: every figure of a run beside what it must be compared with."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from ivra.data import Item, Row, fingerprint
from ivra.errors import IvraError, unknown_name
from ivra.evaluation.aopc import aopc
from ivra.evaluation.consistency import BATCH_ROWS, consistency
from ivra.evaluation.plausibility import plausibility_auc
from ivra.evaluation.prediction import predict, token_scores
from ivra.evaluation.simulation import StudentPlan, simulation_accuracy
from ivra.explainers import Explainer, ModuleExplainer, static_explainer
from ivra.shapes import Logits
from ivra.training import Run, read_splits, versions
from ivra.training.student import new_student
from ivra.training.task import read_part

METRICS = ("accuracy", "aopc", "sim", "cons", "plausibility")
BASELINES = ("untrained", "attention", "attention-last", "random")


@dataclass(frozen=True)
class EvalConfig:
    """What to measure, and on which rows.

    Args:
        metrics: of :data:`METRICS`; empty means all that the data allows.
        data: rows to judge on (default: the run's own data).
        split: the part of them, where the source has parts.
        rows: at most this many rows.
        explainers: what the trained module stands beside.
        students: how many students simulate, for each explainer.
        student_rows: rows each of them learns from.
        student_epochs: passes over those rows (default: 8, or 30 for a tiny model).
        seed: of the students.
    """

    metrics: tuple[str, ...] = ()
    data: str | None = None
    split: str = "test"
    rows: int | None = None
    explainers: tuple[str, ...] = BASELINES
    students: int = 3
    student_rows: int = 500
    student_epochs: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for metric in self.metrics:
            if metric not in METRICS:
                raise unknown_name("metric", metric, list(METRICS))
        for name in ("students", "student_rows"):
            if getattr(self, name) < 1:
                raise IvraError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.rows is not None and self.rows < 1:
            raise IvraError(f"rows is {self.rows}: expected at least 1")
        epochs = self.student_epochs
        if epochs is not None and not 0 < epochs < math.inf:
            raise IvraError(f"student_epochs is {epochs}: expected more than 0")


class _Sheet:
    """What one evaluation measures on, and its figures as they come in."""

    def __init__(
        self,
        run: Run,
        config: EvalConfig,
        items: Sequence[Item],
        explainers: Sequence[Explainer],
        progress: Callable[[str], None],
    ) -> None:
        self.run = run
        self.config = config
        self.items = items
        self.explainers = explainers
        self.progress = progress
        self.figures: dict[str, dict[str, object]] = {e.name: {} for e in explainers}
        self.undefined: dict[str, str] = {}


def evaluate(
    run: Run,
    config: EvalConfig = EvalConfig(),
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, object]:
    """Measure a run.

    Returns:
        A JSON-ready mapping. ``figures[explainer][metric]`` holds the numbers - ``comp`` and
        ``suff`` (AOPC, differences of probabilities), ``sim`` (median share of rows), ``cons``
        (Spearman's rho), ``plausibility`` (AUC) - or ``None`` where one is undefined, with the
        reason in ``undefined``. ``accuracy`` holds the model's own. ``settings``, ``versions``,
        ``seed``, ``config`` and the data's fingerprint say where they come from.

    Raises:
        IvraError: data that cannot be read, or a metric asked for that the data does not allow.
    """
    started = time.time()
    backbone = run.backbone.eval()
    rows, source = evaluation_rows(run, config)
    labelled = all(row.label is not None for row in rows)
    items = run.encoder.items(rows, labelled=labelled)
    metrics = _metrics(config, items, labelled)
    sheet = _Sheet(run, config, items, _explainers(run, config), progress)
    result: dict[str, object] = {
        "run": run.name,
        "model": run.config.model,
        "criteria": run.config.criteria,
        "data": {
            "source": source,
            "split": config.split,
            "rows": len(rows),
            "sha256": fingerprint(rows),
        },
        "figures": sheet.figures,
        "undefined": sheet.undefined,
    }
    progress("predictions")
    logits = predict(backbone, items)
    if "accuracy" in metrics:
        result["accuracy"] = _accuracy(run, items, logits)
    if {"aopc", "plausibility"} & set(metrics):
        progress("explanations")
        scores = {e.name: token_scores(e, backbone, items) for e in sheet.explainers}
        if "aopc" in metrics:
            _aopc(sheet, scores, logits)
        if "plausibility" in metrics:
            _plausibility(sheet, scores)
    if "cons" in metrics:
        _consistency(sheet)
    plan = _plan(run, config)
    if "sim" in metrics:
        _simulation(sheet, plan)
    return result | {
        "settings": _settings(run, config, plan),
        "seed": config.seed,
        "config": run.config.model_dump(mode="json"),
        "training": {key: run.record.get(key) for key in ("data", "seed", "versions")},
        "versions": versions(),
        "seconds": round(time.time() - started, 1),
    }


def evaluation_rows(run: Run, config: EvalConfig) -> tuple[list[Row], str]:
    """The rows to judge on, and where they come from."""
    if config.data is not None:
        rows, source = read_part(run.config, config.data, config.split), config.data
    else:
        splits = read_splits(run.config)
        parts = {"train": splits.train, "dev": splits.valid, "test": splits.test}
        if config.split not in parts:
            raise unknown_name("split", config.split, list(parts))
        rows, source = parts[config.split], run.config.eval_data or run.config.data
    return rows[: config.rows], source


def _metrics(config: EvalConfig, items: Sequence[Item], labelled: bool) -> tuple[str, ...]:
    """The metrics asked for, or all that the data allows."""
    annotated = any(item.rationale is not None for item in items)
    reasons = {}
    if not labelled:
        reasons["accuracy"] = "a label in every row"
    if not annotated:
        reasons["plausibility"] = "rows with a 'rationale'"
    for metric in config.metrics:
        if metric in reasons:
            raise IvraError(
                f"metric '{metric}' needs {reasons[metric]}, which the data does not have: leave "
                "it out, or choose other data"
            )
    return config.metrics or tuple(metric for metric in METRICS if metric not in reasons)


def _explainers(run: Run, config: EvalConfig) -> list[Explainer]:
    return [ModuleExplainer(run.module), *(static_explainer(name) for name in config.explainers)]


def _accuracy(run: Run, items: Sequence[Item], logits: Logits) -> dict[str, object]:
    gold = [item.label for item in items]
    predicted = logits.argmax(-1).tolist()
    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro")),
        "training": run.record.get("accuracy"),
    }


def _aopc(sheet: _Sheet, scores: dict[str, list[Tensor]], logits: Logits) -> None:
    sheet.progress("AOPC")
    run = sheet.run
    for name, found in aopc(run.backbone, sheet.items, scores, run.config.bins, logits).items():
        sheet.figures[name] |= {
            "comp": found.comp.mean().item(),
            "suff": found.suff.mean().item(),
            "comp_by_bin": found.comp_by_bin,
            "suff_by_bin": found.suff_by_bin,
        }


def _plausibility(sheet: _Sheet, scores: dict[str, list[Tensor]]) -> None:
    sheet.progress("plausibility")
    for name, ranking in scores.items():
        auc, counted = plausibility_auc(sheet.items, ranking)
        sheet.figures[name] |= {"plausibility": auc, "plausibility_rows": counted}
        if auc is None:
            sheet.undefined["plausibility"] = "no row has both marked and unmarked tokens"


def _consistency(sheet: _Sheet) -> None:
    sheet.progress("consistency")
    for name, rho in consistency(sheet.run.backbone, sheet.items, sheet.explainers).items():
        sheet.figures[name]["cons"] = rho
        if rho is None:
            sheet.undefined["cons"] = "no batch of at least 3 rows with differing distances"


def _plan(run: Run, config: EvalConfig) -> StudentPlan:
    tiny = run.config.is_tiny
    return StudentPlan(
        rows=config.student_rows,
        epochs=config.student_epochs or (30.0 if tiny else 8.0),
        lr=1e-3 if tiny else 5e-5,
        beta=run.config.student_beta,
        batch_size=run.config.batch_size,
    )


def _simulation(sheet: _Sheet, plan: StudentPlan) -> None:
    run, config = sheet.run, sheet.config
    found = simulation_accuracy(
        run.backbone,
        sheet.explainers,
        run.encoder.items(read_splits(run.config).train),
        sheet.items,
        lambda seed: new_student(run.config, run.backbone, seed),
        plan,
        [10_000 + config.seed * 1000 + number for number in range(config.students)],
        lambda name, seed: sheet.progress(f"student of {name}"),
    )
    for name, simulation in found.items():
        sheet.figures.setdefault(name, {}).update(
            sim=simulation.median,
            sim_quartiles=[simulation.lower_quartile, simulation.upper_quartile],
            sim_values=simulation.values,
        )


def _settings(run: Run, config: EvalConfig, plan: StudentPlan) -> dict[str, object]:
    return {
        "aopc": {
            "bins_percent": list(run.config.bins),
            "normaliser": "1/|bins|",
            "rounding": "max(1, ceil)",
            "ties": "earlier token",
            "removal": "deletion of token ids, positions renumbered",
            "protected": "special tokens",
            "class": "the model's prediction on the whole row",
        },
        "cons": {
            "batch_rows": BATCH_ROWS,
            "saliency_distance": "KL, both sides mixed with 1e-4 of uniform, mean of directions",
            "hidden_distance": "L2 over tokens of the mean over layers",
        },
        "sim": {"students": config.students, **plan._asdict()},
    }
