"""``train``: from a configuration to a run."""

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Item, fingerprint
from ivra.errors import IvraError
from ivra.losses import known_criteria, parse_criteria
from ivra.tasks import Task
from ivra.training.config import TrainConfig
from ivra.training.device import environment, usable_device
from ivra.training.log import JsonlLog
from ivra.training.loop import Hooks, Outcome, Validation
from ivra.training.run import (
    LOG,
    MODEL,
    PLAIN,
    Run,
    has_weights,
    new_folder,
    point_latest,
    save_config,
    save_record,
    save_weights,
)
from ivra.training.stages import CriteriaStage, accuracy, finetune
from ivra.training.task import Encoder, Splits, labels_of, read_splits, task_of
from ivra.training.versions import versions

_T = TypeVar("_T")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def default_name(config: TrainConfig) -> str:
    """``sim+suff-tiny-electra-seed0-20260101-120000``."""
    criteria = "+".join(known.name for known in parse_criteria(config.criteria))
    model = Path(config.model).name
    return f"{criteria}-{model}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


class _KeepBest(Hooks):
    """Saves what stage 2 trains whenever it is the best so far, so that a killed run can be used.

    Where the backbone trains too it is saved with the module, in one step.
    """

    def __init__(
        self, path: Path, module: InterpretableAttention, backbone: Backbone | None
    ) -> None:
        self._path = path
        self._module = module
        self._backbone = backbone

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        if best and stage == "criteria":
            save_weights(self._path, self._module, self._backbone)


def train(
    config: TrainConfig,
    *,
    output: str | Path = "runs",
    name: str | None = None,
    device: str = "cpu",
    hooks: tuple[Hooks, ...] = (),
) -> Run:
    """Fine-tune where needed, train by the criteria, and write ``output/name``.

    Everything is read and checked before the folder is made. The same configuration on the same
    machine with the same number of threads gives the same numbers.

    An interrupt (Ctrl-C) ends the part it falls into - a stage, the making of the criteria, an
    accuracy - skips stage 2 if that has not begun, and leaves a usable run;
    ``run.record["interrupted"]`` says so. An accuracy that was cut off is ``None``. An interrupt
    before the folder is made, or a second one while the run is being written, is raised again.
    A training that fails before its first weights leaves no folder.

    Args:
        config: what to do.
        output: folder of runs; ``latest`` in it will point at this one.
        name: the run's own folder (default: criteria, model, seed and time).
        device: where to train, as PyTorch names it.
        hooks: called as the training goes, after the run's own log.

    Raises:
        IvraError: anything the user can mend, before earlier runs are touched.
    """
    started = time.time()
    where = usable_device(device)
    seed_everything(config.seed)
    splits = read_splits(config)
    task = task_of(splits.train, config)
    labels = labels_of(splits.train, config.data, task)
    _check_criteria(config, task)
    backbone = load_backbone(
        config.model,
        labels,
        tasks=(task,),
        seed=config.seed,
        loading=config.loading,
        device=where,
    )
    encoder = Encoder(backbone, config.max_length, config.batch_size, config.batch_tokens)
    train_items, valid_items = encoder.lessons(splits.train), encoder.items(splits.valid)
    _check_rationales(config, train_items)
    random.Random(config.seed).shuffle(train_items)
    path = new_folder(Path(output), default_name(config) if name is None else name)
    try:
        save_config(path, config)
        training = _Training(config, path, encoder, train_items, valid_items, hooks)
        training.learn()
        return training.finish({"data": _data_record(splits)}, started)
    except BaseException as error:
        if not has_weights(path):
            shutil.rmtree(path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"{path} is unfinished; it holds the best weights that were saved"
            ) from error
        raise


class _Training:
    """A run on its way, and how far it has come."""

    def __init__(
        self,
        config: TrainConfig,
        path: Path,
        encoder: Encoder,
        train: list[Item],
        valid: list[Item],
        hooks: tuple[Hooks, ...],
    ) -> None:
        self.config = config
        self.path = path
        self.encoder = encoder
        self.backbone = encoder.backbone
        self.train = train
        self.valid = valid
        self.log = JsonlLog(path / LOG)
        self.hooks = hooks
        self.module = _new_module(config, self.backbone)
        self.first: Outcome | None = None
        self.second: Outcome | None = None
        self.before: float | None = None
        self.after: float | None = None
        self.interrupted = False

    def learn(self) -> None:
        """Both stages, the weights saved after each, and the accuracies around stage 2."""
        config = self.config
        if config.finetune == "always" or (config.finetune == "auto" and self.backbone.head_is_new):
            self.first = self._stage(self._finetune)
        self.backbone.eval()
        self.before = self._part(self._accuracy)
        folders = (MODEL,) if config.train == "module" else (MODEL, PLAIN)
        self._written(lambda: save_weights(self.path, self.module, self.backbone, folders))
        if self.interrupted:
            self.after = self.before
            return
        changed = self.backbone if config.train != "module" else None
        keep = _KeepBest(self.path, self.module, changed)
        self.second = self._stage(lambda: self._criteria(keep))
        self._written(lambda: save_weights(self.path, self.module, changed))
        self.after = self._part(self._accuracy)

    def finish(self, facts: dict[str, object], started: float) -> Run:
        """The record, beginning with ``facts``, and ``latest``."""
        record: dict[str, object] = {}

        def write() -> None:
            record.update(
                seed=self.config.seed,
                versions=versions(),
                environment=environment(self.backbone),
                labels=list(self.backbone.labels),
                **self._base(),
                **facts,
                task=self.backbone.task.name,
                **{self.backbone.task.measure: self._shares()},
                finetune=_outcome_record(self.first),
                criteria=_outcome_record(self.second),
                interrupted=self.interrupted,
                seconds=round(time.time() - started, 1),
            )
            save_record(self.path, record)
            point_latest(self.path)

        self._written(write)
        return Run(self.path, self.config, self.backbone, self.module.eval(), record)

    def _shares(self) -> dict[str, object]:
        return {"before": self.before, "after": self.after, "split": "valid"}

    def _base(self) -> dict[str, object]:
        """What the adapters of the run adapt, where it has some."""
        base = self.backbone.base
        return {} if base is None else {"base": base._asdict()}

    def _finetune(self) -> Outcome:
        hooks = (self.log, *self.hooks)
        return finetune(self.config, self.encoder, self.train, self.valid, hooks)

    def _criteria(self, keep: Hooks) -> Outcome:
        hooks = (self.log, keep, *self.hooks)
        stage = CriteriaStage(self.config, self.encoder, self.module, self.train, self.valid, hooks)
        return stage.run()

    def _accuracy(self) -> float:
        return accuracy(self.backbone, self.encoder, self.valid)

    def _part(self, call: Callable[[], _T]) -> _T | None:
        """What ``call`` gives, ``None`` if an interrupt cuts it off."""
        try:
            return call()
        except KeyboardInterrupt:
            self.interrupted = True
            return None

    def _stage(self, call: Callable[[], Outcome]) -> Outcome:
        outcome = self._part(call) or Outcome(0, 0, None, interrupted=True)
        self.interrupted = self.interrupted or outcome.interrupted
        return outcome

    def _written(self, write: Callable[[], None]) -> None:
        """Write, and once more from the start if an interrupt falls into it."""
        try:
            write()
        except KeyboardInterrupt:
            self.interrupted = True
            write()


def _check_criteria(config: TrainConfig, task: Task) -> None:
    known = known_criteria()
    for name, _ in parse_criteria(config.criteria):
        criterion = known[name].criterion
        chosen = {key: option.default for key, option in criterion.options().items()}
        chosen |= config.options.get(name, {})
        for option, value in criterion.needs_classes.items():
            if not task.has_classes and chosen.get(option) == value:
                raise IvraError(
                    f"criterion '{name}' with {option}={value} needs classes, which {task.name} "
                    f"does not have: choose another {option}, or other data"
                )


def _check_rationales(config: TrainConfig, items: list[Item]) -> None:
    known = known_criteria()
    for name, _ in parse_criteria(config.criteria):
        if known[name].criterion.needs_rationale and not any(any(i.rationale or ()) for i in items):
            raise IvraError(
                f"criterion '{name}' needs rows with a 'rationale', which {config.data} does not "
                "have: leave it out, or choose other data"
            )


def _new_module(config: TrainConfig, backbone: Backbone) -> InterpretableAttention:
    module = InterpretableAttention(
        backbone.sizes,
        config.levels,
        config.reading,
        config.coefficients_norm,
        config.saliency_norm,
    )
    return module.to(backbone.device)


def _data_record(splits: Splits) -> dict[str, object]:
    return {
        "train": {"rows": len(splits.train), "sha256": fingerprint(splits.train)},
        "valid": {"rows": len(splits.valid), "sha256": fingerprint(splits.valid)},
    }


def _outcome_record(outcome: Outcome | None) -> dict[str, object] | None:
    if outcome is None:
        return None
    return {
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "best": outcome.best.terms if outcome.best is not None else None,
    }
