"""Students of a run: who teaches them, what they get right, and whether teachers differ."""

from collections.abc import Sequence

import numpy as np

from ivra.data import Item
from ivra.errors import IvraError
from ivra.evaluation.config import EvalConfig
from ivra.evaluation.sheet import Sheet
from ivra.evaluation.significance import paired_test
from ivra.evaluation.simulation import Simulation, StudentPlan, simulation_accuracy
from ivra.explainers import CONTROLS, Explainer, ModuleExplainer, control
from ivra.training import Run, read_splits
from ivra.training.student import Newcomers


def _plan(run: Run, config: EvalConfig) -> StudentPlan:
    tiny = run.config.student_is_tiny
    return StudentPlan(
        rows=config.student_rows,
        epochs=config.student_epochs or (30.0 if tiny else 8.0),
        lr=run.config.student_lr or run.config.rate(tiny),
        beta=run.config.student_beta,
        batch_size=run.config.batch_size,
        divergence=run.config.student_divergence,
        normaliser=run.config.saliency_norm,
        batch_tokens=run.config.batch_tokens,
    )


def add_simulation(sheet: Sheet) -> None:
    """Simulation accuracy of the explainers and controls, and tests between their students."""
    run, config = sheet.run, sheet.config
    plan = _plan(run, config)
    train = run.encoder.lessons(read_splits(run.config).train)
    controls = _controls(config, train)
    here = {explainer.name for explainer in sheet.explainers}
    found = simulation_accuracy(
        run.backbone,
        [*sheet.explainers, *(c for c in controls if c.name not in here)],
        train,
        sheet.items,
        Newcomers(run.config, run.backbone),
        plan,
        [10_000 + config.seed * 1000 + number for number in range(config.students)],
        lambda name, seed: sheet.progress(f"student of {name}"),
        config.explain_batch_tokens,
        config.untaught,
    )
    for name, simulation in found.items():
        median = sheet.bootstrap.interval(
            simulation.matrix().T.astype(float), lambda means: np.median(means, axis=1)
        )
        figures = {
            "sim": simulation.median,
            "sim_quartiles": [simulation.lower_quartile, simulation.upper_quartile],
            "sim_values": simulation.values,
            "sim_correct": simulation.correct,
        }
        sheet.add(name, figures, {"sim": median})
    sheet.tests += _comparisons(sheet, found)
    sheet.settings["sim"] = {
        "students": config.students,
        **plan._asdict(),
        "controls": (["none"] if config.untaught else []) + [c.name for c in controls],
        "test": "exact randomisation over rows, two-sided; McNemar's for one student",
    }


def _controls(config: EvalConfig, train: Sequence[Item]) -> list[Explainer]:
    """The controls asked for, or all that the training rows allow."""
    marked = any(item.rationale is not None and any(item.rationale) for item in train)
    if config.controls is not None and "true" in config.controls and not marked:
        raise IvraError(
            "the control 'true' needs training rows with a 'rationale', which the data does not "
            "have: leave it out, or choose other data"
        )
    names = CONTROLS if config.controls is None else config.controls
    return [control(name, config.seed) for name in names if marked or name != "true"]


def _comparisons(sheet: Sheet, found: dict[str, Simulation]) -> list[dict[str, object]]:
    """Every explainer's students against those of none, and the trained module's against all."""
    own = ModuleExplainer.name
    pairs = [(name, "none") for name in found if "none" in found and name != "none"]
    pairs += [(own, name) for name in found if name not in ("none", own)]
    tests: list[dict[str, object]] = []
    for first, second in pairs:
        right, other = found[first].matrix(), found[second].matrix()
        gap = right.mean(0) - other.mean(0)
        test = {
            "metric": "sim",
            "first": first,
            "second": second,
            **paired_test(right, other)._asdict(),
            "interval": sheet.bootstrap.of_means({"gap": gap}).get("gap"),
        }
        tests.append(test)
    return tests
