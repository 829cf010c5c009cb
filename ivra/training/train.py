"""``train``: from a configuration to a run."""

import random
import time
from pathlib import Path

import numpy as np
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Item, fingerprint
from ivra.errors import IvraError
from ivra.losses import known_criteria, parse_criteria
from ivra.training.config import TrainConfig
from ivra.training.log import JsonlLog
from ivra.training.loop import Hooks, Outcome, Validation
from ivra.training.run import (
    LOG,
    PLAIN,
    Run,
    new_folder,
    point_latest,
    save_backbone,
    save_config,
    save_module,
    save_record,
)
from ivra.training.stages import CriteriaStage, accuracy, finetune
from ivra.training.task import Encoder, Splits, labels_of, read_splits
from ivra.training.versions import versions


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def usable_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        IvraError: PyTorch does not know it, or it is not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IvraError(f"cannot use the device '{name}' ({reason}): try cpu or cuda") from error
    return device


def default_name(config: TrainConfig) -> str:
    """``sim+suff-tiny-electra-seed0-20260101-120000``."""
    criteria = "+".join(known.name for known in parse_criteria(config.criteria))
    model = Path(config.model).name
    return f"{criteria}-{model}-seed{config.seed}-{time.strftime('%Y%m%d-%H%M%S')}"


class _KeepModule(Hooks):
    """Saves the module whenever it is the best so far, so that a killed run can be used."""

    def __init__(self, path: Path, module: InterpretableAttention) -> None:
        self._path = path
        self._module = module

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        if best and stage == "criteria":
            save_module(self._path, self._module)


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
    machine gives the same numbers. An interrupt (Ctrl-C) ends the stage it falls into and leaves
    a usable run; ``run.record["interrupted"]`` says so.

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
    labels = labels_of(splits.train, config.data)
    backbone = load_backbone(config.model, labels, seed=config.seed).to(where)
    encoder = Encoder(backbone, config.max_length, config.batch_size)
    train_items, valid_items = encoder.items(splits.train), encoder.items(splits.valid)
    _check_rationales(config, train_items)
    random.Random(config.seed).shuffle(train_items)
    path = new_folder(Path(output), name or default_name(config))
    save_config(path, config)
    log = JsonlLog(path / LOG)

    first: Outcome | None = None
    if config.finetune == "always" or (config.finetune == "auto" and backbone.head_is_new):
        first = finetune(config, encoder, train_items, valid_items, (log, *hooks))
    backbone.eval()
    before = accuracy(backbone, encoder, valid_items)
    save_backbone(path, backbone)
    if config.train != "module":
        save_backbone(path, backbone, PLAIN)
    module = _new_module(config, backbone)
    save_module(path, module)
    second: Outcome | None = None
    if first is None or not first.interrupted:
        stage_hooks = (log, _KeepModule(path, module), *hooks)
        try:
            stage = CriteriaStage(config, encoder, module, train_items, valid_items, stage_hooks)
            second = stage.run()
        except KeyboardInterrupt:  # before the first step, while criteria are being built
            second = Outcome(0, 0, None, interrupted=True)
        save_module(path, module)
        if config.train != "module":
            save_backbone(path, backbone)

    after = accuracy(backbone, encoder, valid_items)
    record: dict[str, object] = {
        "seed": config.seed,
        "versions": versions(),
        "labels": list(backbone.labels),
        "data": _data_record(splits),
        "accuracy": {"before": before, "after": after, "split": "valid"},
        "finetune": _outcome_record(first),
        "criteria": _outcome_record(second),
        "interrupted": any(outcome and outcome.interrupted for outcome in (first, second)),
        "seconds": round(time.time() - started, 1),
    }
    save_record(path, record)
    point_latest(path)
    return Run(path, config, backbone, module.eval(), record)


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
