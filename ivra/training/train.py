"""``train``: from a configuration to a run."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, gathered, load_backbone
from ivra.losses import parse_criteria
from ivra.storage import current, locked, remove_whole
from ivra.training.checkpoint import (
    FOLDER,
    Checkpoint,
    Checkpoints,
    Every,
    has_checkpoint,
    parse_every,
)
from ivra.training.checksums import check_weights
from ivra.training.config import TrainConfig
from ivra.training.device import environment
from ivra.training.devices import Devices
from ivra.training.keeping import Validation
from ivra.training.lesson import Lesson, finetunes, read_lesson
from ivra.training.log import LOG, JsonlLog, logged_conflicts
from ivra.training.loop import Hooks, Outcome
from ivra.training.randomness import seed_everything
from ivra.training.run import (
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
from ivra.training.state import State, copy_into, misfit
from ivra.training.versions import versions

_T = TypeVar("_T")


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
    checkpoint_every: str | int | None = None,
) -> Run:
    """Fine-tune where needed, train by the criteria, and write ``output/name``.

    Everything is read and checked before the folder is made. The same configuration on the same
    machine with the same number of threads gives the same numbers.

    A run that is killed, fails or is interrupted can be taken up again: see
    :func:`~ivra.training.resume`.

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
        hooks: called as the training goes, after the run's own log; of several processes, in the
            first.
        checkpoint_every: when to save what can be resumed besides every validation: a
            number of steps, or a time (``"90s"``, ``"10m"``, ``"1h"``); ``"never"``: not even
            then.

    Raises:
        IvraError: anything the user can mend, before earlier runs are touched.
    """
    every = parse_every(checkpoint_every)
    lesson = read_lesson(config, device)
    devices = lesson.devices
    chosen = default_name(config) if name is None else name
    path = Path(devices.first(lambda: str(new_folder(Path(output), chosen))))
    with written(path, devices):
        devices.first(lambda: save_config(path, config))
        return Training(lesson, path, hooks, every, None).run()


@contextmanager
def written(path: Path, devices: Devices) -> Iterator[None]:
    """A new run's folder in the hands of the main process."""
    with locked(path) if devices.is_main else nullcontext(), unfinished(path, devices):
        yield


@contextmanager
def unfinished(path: Path, devices: Devices) -> Iterator[None]:
    """What becomes of a run's folder when something breaks: it goes if nothing was learnt yet."""
    try:
        yield
    except BaseException as error:
        if not devices.is_main:
            raise
        if not has_weights(path) and not has_checkpoint(path):
            shutil.rmtree(path, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"{path} is unfinished; go on with 'ivra train --resume {path}'"
            ) from error
        raise


class Training:
    """A run on its way, and how far it has come."""

    def __init__(
        self,
        lesson: Lesson,
        path: Path,
        hooks: tuple[Hooks, ...],
        every: Every,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.config = lesson.config
        self.path = path
        self.encoder = lesson.encoder
        self.backbone = lesson.encoder.backbone
        self.train = lesson.train
        self.valid = lesson.valid
        self.data = lesson.data
        self.devices = lesson.devices
        self.hooks = (JsonlLog(path / LOG), *hooks) if self.devices.is_main else ()
        self.module = lesson.module
        saver = Checkpoints(path, every, self._facts, self.devices)
        self.saver = None if every.never else saver
        self.checkpoint = checkpoint
        self.started = time.time()
        self.resumed: list[dict[str, Any]] = []
        self.first: dict[str, Any] | None = None
        self.second: dict[str, Any] | None = None
        self.before: float | None = None
        self.after: float | None = None
        self.interrupted = False
        if checkpoint is not None:
            self._take_up(checkpoint)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        place = {"stage": checkpoint.stage, "step": checkpoint.step}
        self.resumed = [*checkpoint.resumed, place]
        self.started -= checkpoint.seconds
        self.first, self.before = checkpoint.finetune, checkpoint.before
        if checkpoint.stage == "criteria" and self.first is not None:
            self._take_weights()

    def _take_weights(self) -> None:
        """What stage 1 made of the model; into its own memory, where sums have the same order."""
        check_weights(self.path)
        folder = current(self.path, MODEL)
        self.backbone.head_is_new = False
        if self.backbone.adapter is not None:
            self.backbone.load_adapter(folder)
            return
        saved = load_backbone(str(folder), None, tasks=self.config.tasks)
        try:
            copy_into(list(self.backbone.parameters()), list(saved.parameters()))
        except ValueError as error:
            raise misfit(error) from error

    def run(self) -> Run:
        """All that is left to do."""
        if not self.devices.is_main:  # draws of its own
            seed_everything(self.config.seed + 7919 * self.devices.index)
        if self.learn():
            self.explain()
        return self.finish()

    def learn(self) -> bool:
        """Stage 1 and the first weights; whether stage 2 is to follow."""
        config = self.config
        if self.checkpoint is not None and self.checkpoint.stage == "criteria":
            return True
        if finetunes(config, self.backbone):
            self.first = self._stage(self._finetune)
        self.backbone.eval()
        self.before = self._part(self._accuracy)
        folders = (MODEL,) if config.train == "module" else (MODEL, PLAIN)
        weights = gathered(self.backbone, self.devices.is_main)
        self._written(lambda: save_weights(self.path, self.module, self.backbone, folders, weights))
        if self.interrupted:
            self.after = self.before
        return not self.interrupted

    def explain(self) -> None:
        """Stage 2, its weights, and the accuracy after it."""
        changed = self.backbone if self.config.train != "module" else None
        keep = _KeepBest(self.path, self.module, changed)
        self.second = self._stage(lambda: self._criteria(keep))
        self._written(lambda: save_weights(self.path, self.module, changed))
        self.after = self.before if changed is None else self._part(self._accuracy)

    def finish(self) -> Run:
        """The record and ``latest``; the checkpoint goes unless there is something left to do."""
        record: dict[str, object] = {}

        def write() -> None:
            record.update(
                processes=self.devices.count,
                seed=self.config.seed,
                versions=versions(),
                environment=environment(self.backbone),
                labels=list(self.backbone.labels),
                **self._base(),
                data=self.data,
                task=self.backbone.task.name,
                **{self.backbone.task.measure: self._shares()},
                finetune=self.first,
                criteria=self.second,
                conflicts=[found._asdict() for found in logged_conflicts(self.path / LOG)],
                interrupted=self.interrupted,
                resumed=self.resumed,
                seconds=self._seconds(),
            )
            save_record(self.path, record)
            point_latest(self.path)
            if not self.interrupted:
                remove_whole(self.path, FOLDER)

        self._written(write)
        return Run(self.path, self.config, self.backbone, self.module.eval(), record)

    def _facts(self) -> dict[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "data": self.data,
            "device": self.backbone.device.type
            if self.devices.count > 1
            else str(self.backbone.device),
            "finetune": self.first,
            "before": self.before,
            "seconds": self._seconds(),
            "resumed": self.resumed,
            "processes": self.devices.count,
        }

    def _seconds(self) -> float:
        return round(max(0.0, time.time() - self.started), 1)

    def _state(self, stage: str) -> State | None:
        checkpoint = self.checkpoint
        return checkpoint.state if checkpoint is not None and checkpoint.stage == stage else None

    def _shares(self) -> dict[str, object]:
        return {"before": self.before, "after": self.after, "split": "valid"}

    def _base(self) -> dict[str, object]:
        """What the adapters of the run adapt, where it has some."""
        base = self.backbone.base
        return {} if base is None else {"base": base._asdict()}

    def _finetune(self) -> Outcome:
        return finetune(
            self.config,
            self.encoder,
            self.train,
            self.valid,
            self.hooks,
            self.saver,
            self._state("finetune"),
            self.devices,
        )

    def _criteria(self, keep: Hooks) -> Outcome:
        hooks = (*self.hooks[:1], keep, *self.hooks[1:]) if self.devices.is_main else ()
        stage = CriteriaStage(
            self.config,
            self.encoder,
            self.module,
            self.train,
            self.valid,
            hooks,
            self.devices,
        )
        return stage.run(self.saver, self._state("criteria"))

    def _accuracy(self) -> float:
        return accuracy(
            self.backbone, self.encoder, self.valid[: self.config.validation_rows], self.devices
        )

    def _part(self, call: Callable[[], _T]) -> _T | None:
        """What ``call`` gives, ``None`` if an interrupt cuts it off."""
        try:
            return call()
        except KeyboardInterrupt:
            if self.devices.count > 1:  # the others may be waiting for this process
                raise
            self.interrupted = True
            return None

    def _stage(self, call: Callable[[], Outcome]) -> dict[str, Any]:
        outcome = self._part(call) or Outcome(0, 0, None, interrupted=True)
        self.interrupted = self.interrupted or outcome.interrupted
        return {
            "steps": outcome.steps,
            "best_step": outcome.best_step,
            "best": outcome.best.terms if outcome.best is not None else None,
            "skipped": outcome.skipped,
        }

    def _written(self, write: Callable[[], None]) -> None:
        """Write, and once more from the start if an interrupt falls into it."""

        def once() -> None:
            try:
                write()
            except KeyboardInterrupt:
                self.interrupted = True
                write()

        self.devices.first(once)
