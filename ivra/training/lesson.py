"""What a run needs before it has a folder: all that is read and checked."""

import random
from dataclasses import dataclass

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone, shard
from ivra.data import Item, fingerprint
from ivra.errors import IvraError
from ivra.losses import known_criteria, parse_criteria
from ivra.tasks import Task
from ivra.training.config import TrainConfig
from ivra.training.device import usable_device
from ivra.training.devices import ALONE, Devices, accelerate_shards, devices_of, processes
from ivra.training.randomness import seed_everything
from ivra.training.soup import start_from
from ivra.training.task import Encoder, Splits, encoder_of, labels_of, read_splits, task_of


@dataclass(frozen=True)
class Lesson:
    """Configuration, model, rows, and the processes that share the work."""

    config: TrainConfig
    encoder: Encoder
    module: InterpretableAttention
    train: list[Item]
    valid: list[Item]
    data: dict[str, dict[str, object]]
    devices: Devices = ALONE


def read_lesson(config: TrainConfig, device: str) -> Lesson:
    """Read and check everything that ``config`` names.

    Raises:
        IvraError: anything the user can mend.
    """
    _check_launch(config)
    devices, own = devices_of(device)
    where = usable_device(own)
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
        device="cpu" if config.fsdp else where,
    )
    if config.fsdp:
        _check_frozen(config, backbone)
        shard(backbone, devices.count, where)
    encoder = encoder_of(backbone, config)
    train, valid = encoder.lessons(splits.train), encoder.items(splits.valid)
    _check_rationales(config, train)
    module = _new_module(config, backbone)
    random.Random(config.seed).shuffle(train)
    return Lesson(config, encoder, module, train, valid, _data_record(splits), devices)


def finetunes(config: TrainConfig, backbone: Backbone) -> bool:
    """Whether there will be a stage 1."""
    return config.finetune == "always" or (config.finetune == "auto" and backbone.head_is_new)


def _check_launch(config: TrainConfig) -> None:
    """That a model is shared out by ivra, among several, and wanted by no one else."""
    if accelerate_shards():
        raise IvraError(
            "accelerate launch was told to use FSDP, which would shard nothing here: leave "
            "--use_fsdp out, and give ivra train --fsdp"
        )
    if config.fsdp and processes() == 1:
        raise IvraError(
            "fsdp shares the model out among several processes, but there is one: start more, as "
            "in torchrun --nproc-per-node 2 -m ivra train --fsdp"
        )
    known = known_criteria()
    for name, _ in parse_criteria(config.criteria):
        if config.fsdp and known[name].criterion.needs_student:
            raise IvraError(
                f"fsdp with criterion '{name}', whose students need the whole model: leave one of "
                "them out"
            )


def _check_frozen(config: TrainConfig, backbone: Backbone) -> None:
    if backbone.adapter is None and (config.train != "module" or finetunes(config, backbone)):
        raise IvraError(
            "fsdp needs the body frozen: expected lora, or train module with a model that knows "
            f"the task, or finetune never; got train {config.train} and finetune {config.finetune}"
        )


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


def _data_record(splits: Splits) -> dict[str, dict[str, object]]:
    return {
        "train": {"rows": len(splits.train), "sha256": fingerprint(splits.train)},
        "valid": {"rows": len(splits.valid), "sha256": fingerprint(splits.valid)},
    }


def _new_module(config: TrainConfig, backbone: Backbone) -> InterpretableAttention:
    module = InterpretableAttention(
        backbone.sizes,
        config.levels,
        config.reading,
        config.coefficients_norm,
        config.saliency_norm,
        config.preferences,
        config.value_hidden,
        config.by_class,
    )
    if config.init_module:
        start_from(module, config.init_module)
    return module.to(backbone.device)
