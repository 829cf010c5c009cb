"""How long things take: a step of training, an explanation."""

import json
import statistics
import time
from pathlib import Path

import torch

from ivra.backbones import Backbone
from ivra.data import Item
from ivra.evaluation import EvalConfig, evaluation_rows, token_scores
from ivra.explainers import Explainer, ModuleExplainer, static_explainer
from ivra.storage import write_json_atomic
from ivra.training import Hooks, Run, Validation

CLOCK = "clock.json"
ROUNDS = 3


class StepClock(Hooks):
    """Seconds of every step of stage 2, validations left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since: float | None = None

    def on_begin(self, stage: str, steps: int) -> None:
        """What follows is the first step, or the validation before it."""
        self._since = None

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        """A step is over."""
        now = time.perf_counter()
        if stage == "criteria" and self._since is not None:
            self.seconds.append(now - self._since)
        self._since = now

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        """A validation is over: the next step begins now."""
        self._since = time.perf_counter()

    @property
    def median(self) -> float | None:
        """Of a step; ``None`` before there is one."""
        return statistics.median(self.seconds) if self.seconds else None


def write_clock(run: Path, clock: StepClock) -> None:
    """Keep the time of a step beside the run."""
    write_json_atomic(run / CLOCK, {"step_seconds": clock.median, "steps": len(clock.seconds)})


def read_clock(run: Path) -> float | None:
    """Seconds of a step of stage 2 (median); ``None`` if they were not taken."""
    if not (run / CLOCK).is_file():
        return None
    found: float | None = json.loads((run / CLOCK).read_text(encoding="utf-8"))["step_seconds"]
    return found


def explain_seconds(run: Run, config: EvalConfig, count: int) -> dict[str, float]:
    """Seconds an explanation takes, a row at a time, on the ``count`` longest rows that are judged.

    The median over rounds, in each of which all explainers run in turn, so that a drifting
    machine meets them all; after one round that does not count.
    """
    backbone = run.backbone.eval()
    rows, _ = evaluation_rows(run, config)
    every = run.encoder.items(rows, labelled=False)
    items = sorted(every, key=lambda item: -len(item.input_ids))[:count]
    explainers = [
        ModuleExplainer(run.module),
        *(static_explainer(name, config.seed) for name in config.explainers),
    ]
    taken: dict[str, list[float]] = {explainer.name: [] for explainer in explainers}
    for number in range(ROUNDS + 1):
        for explainer in explainers:
            seconds = _seconds(explainer, backbone, items)
            if number:
                taken[explainer.name].append(seconds / len(items))
    return {name: statistics.median(values) for name, values in taken.items()}


def _seconds(explainer: Explainer, backbone: Backbone, items: list[Item]) -> float:
    started = time.perf_counter()
    for item in items:
        token_scores(explainer, backbone, [item])
    if backbone.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
