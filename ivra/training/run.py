"""A run's folder: what is in it, how it is written and read back."""

import copy
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ivra.attention import AttentionSizes, InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.errors import IvraError, first_line
from ivra.storage import current, replace_together, write_json_atomic, write_text_atomic
from ivra.tasks import Task
from ivra.training.checksums import check_weights, write_checksums
from ivra.training.config import TrainConfig, make_config
from ivra.training.config_file import read_config
from ivra.training.device import usable_device
from ivra.training.task import Encoder, encoder_of

CONFIG, RECORD, MODULE, WEIGHTS = (
    "config.yaml",
    "run.json",
    "module.json",
    "module.safetensors",
)
LATEST = "latest"
MODEL, PLAIN = "model", "plain"
"""Folders of the model, and of the model before the criteria where they train its backbone."""


@dataclass(frozen=True)
class Run:
    """A trained model, its attention module and how they came about.

    ``record`` is what ``run.json`` holds: versions, seed, data fingerprints, accuracies,
    the steps kept.
    """

    path: Path
    config: TrainConfig
    backbone: Backbone
    module: InterpretableAttention
    record: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def preferring(self, shares: Mapping[str, float]) -> "Run":
        """The same run, explaining by the trade-off ``shares`` of its criteria.

        Only one that was trained with ``combine`` preference can.

        Raises:
            IvraError: another run, or shares that do not fit.
        """
        module = copy.deepcopy(self.module)
        module.prefer(shares)
        return replace(self, module=module)

    @property
    def encoder(self) -> Encoder:
        """Turns rows into batches of this run's backbone."""
        return encoder_of(self.backbone, self.config)


def new_folder(output: Path, name: str) -> Path:
    """Make ``output/name``.

    Raises:
        IvraError: it exists or cannot be made, ``name`` is not the name of one folder, or
            ``latest`` beside it is no link and could not be pointed at it.
    """
    path, latest = output / name, output / LATEST
    if name in ("", ".", "..", LATEST) or Path(name).name != name:
        raise IvraError(f"a run cannot be called '{name}': expected the name of one folder")
    if os.path.lexists(latest) and not latest.is_symlink():
        raise IvraError(f"{latest} is no link to a run: move it away, or choose another --output")
    if os.path.lexists(path):
        raise IvraError(f"{path} exists already: choose another name with --name, or remove it")
    try:
        output.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except (OSError, ValueError) as error:
        reason = isinstance(error, OSError) and error.strerror
        reason = reason or first_line(error)
        raise IvraError(f"cannot make the run folder {path}: {reason}") from error
    return path


def point_latest(path: Path) -> None:
    """Let ``latest`` beside ``path`` point at it, in one step."""
    link = path.parent / f".{secrets.token_hex(4)}"
    try:
        link.symlink_to(path.name)
        os.replace(link, path.parent / LATEST)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise IvraError(f"cannot point {path.parent / LATEST} at the run: {reason}") from error
    finally:
        link.unlink(missing_ok=True)


def save_config(path: Path, config: TrainConfig) -> None:
    """The merged configuration as YAML."""
    values = config.model_dump(mode="json")
    write_text_atomic(path / CONFIG, yaml.safe_dump(values, sort_keys=False))


def save_weights(
    path: Path,
    module: InterpretableAttention,
    backbone: Backbone | None = None,
    folders: tuple[str, ...] = (MODEL,),
    gathered: dict[str, Tensor] | None = None,
) -> None:
    """The module's shape and weights and, if given, the model they belong to, in one step.

    The model (or its adapters) stands in each of ``folders`` with its tokenizer, see
    :meth:`Backbone.save_pretrained`, which is given ``gathered``. A kill at any moment leaves what
    was there or all that is new; so do an error and an interrupt.
    """
    with one_line(f"cannot save the weights to {path}"), replace_together(path) as staged:
        write_json_atomic(staged / MODULE, module.config())
        tensors = {name: p.detach().cpu().contiguous() for name, p in module.named_parameters()}
        save_file(tensors, staged / WEIGHTS)
        if backbone is not None:
            for folder in folders:
                backbone.save_pretrained(staged / folder, gathered)
        for weights in staged.rglob("*.safetensors"):  # for the owner alone, whatever the umask
            shutil.copymode(staged / MODULE, weights)
        write_checksums(staged, path)


def has_weights(path: Path) -> bool:
    """Whether the folder has got as far as its first weights."""
    return all(current(path, part).exists() for part in (MODEL, MODULE, WEIGHTS))


def save_record(path: Path, record: dict[str, object]) -> None:
    """What the run did, as JSON."""
    write_json_atomic(path / RECORD, record)


def load_run(path: str | Path = "runs/latest", device: str = "cpu", *, merge: bool = False) -> Run:
    """Read a run back, onto ``device`` as PyTorch names it.

    Adapters are put on the base that the run names, as it was loaded to train them. With
    ``merge`` they become part of its weights, which are not quantised then: an ordinary model
    with the same logits, up to rounding, whose ``save_pretrained`` needs neither peft nor the base.

    Raises:
        IvraError: no folder there, one without configuration, model, head or weights, a base that
            is not there any more, or a device that cannot be used.
    """
    where = usable_device(device)
    folder = _run_folder(Path(path))
    check_weights(folder)
    config = make_config(read_config(folder / CONFIG), str(folder / CONFIG))
    backbone = _load_model(current(folder, MODEL), config, config.tasks, where, merge)
    module = _load_module(folder).to(where)
    record = _read_json(folder / RECORD) if (folder / RECORD).exists() else {}
    return Run(folder, config, backbone.eval(), module, record)


def begun_folder(path: Path) -> Path:
    """``path`` with links followed, checked to hold a run that was begun."""
    if path.is_symlink() and not path.exists():
        raise IvraError(
            f"no run at {path}: it points at {os.readlink(path)}, which is not there any more; "
            "name the run's folder"
        )
    if not path.exists():
        hint = "train one with 'ivra train'" if path.name == LATEST else "check the path"
        raise IvraError(f"no run at {path}: {hint}")
    if not path.is_dir():
        raise IvraError(f"{path} is a file: expected a run folder of 'ivra train'")
    folder = path.resolve()
    if not (folder / CONFIG).exists():
        raise IvraError(f"{folder} has no {CONFIG}: expected a run folder of 'ivra train'")
    return folder


def _run_folder(path: Path) -> Path:
    """The same, one that got as far as its first weights."""
    folder = begun_folder(path)
    for part in (MODULE, WEIGHTS, MODEL):
        if not current(folder, part).exists():
            raise IvraError(
                f"{folder} has no {part}: expected a run folder of 'ivra train' that got as far "
                "as its first weights"
            )
    return folder


def load_plain(run: Run) -> Backbone | None:
    """The model of ``run`` before the criteria, on the same device; ``None`` if none was kept.

    It is kept where the criteria train the backbone; elsewhere it is the run's own.
    """
    if run.config.train == "module":
        return run.backbone
    plain = current(run.path, PLAIN)
    if not plain.is_dir():
        return None
    if run.backbone.adapter is not None:
        return run.backbone.sibling(0, plain)
    merge = run.config.lora
    return _load_model(plain, run.config, (run.backbone.task,), run.backbone.device, merge).eval()


def _load_model(
    folder: Path, config: TrainConfig, tasks: Sequence[Task], device: torch.device, merge: bool
) -> Backbone:
    """A model as it was trained; no part of it is drawn anew."""
    loading = replace(config.loading, revision=None, lora=None, merge=merge)
    backbone = load_backbone(str(folder), None, tasks=tasks, loading=loading, device=device)
    if backbone.head_is_new:
        raise IvraError(
            f"{folder} lacks the weights of its head, which would be drawn anew: the run is "
            "damaged, train it again"
        )
    return backbone


def _load_module(folder: Path) -> InterpretableAttention:
    shape = _read_json(current(folder, MODULE))
    try:
        module = InterpretableAttention(
            AttentionSizes(**shape["sizes"]),
            tuple(shape["levels"]),
            shape["reading"],
            shape["coefficients_norm"],
            shape["saliency_norm"],
            tuple(shape.get("preferences", ())),
            shape.get("value_hidden", 0),
            shape.get("by_class", True),
        )
        module.load_state_dict(load_file(current(folder, WEIGHTS)))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, OSError) as error:
        raise IvraError(
            f"{folder}: {MODULE} and {WEIGHTS} do not fit ({first_line(error)}): the run is "
            "damaged, train it again"
        ) from error
    return module.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise IvraError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise IvraError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn the errors of writing weights into one :class:`IvraError`."""
    try:
        yield
    except Exception as error:
        # tokenizers knows no better than a bare Exception for a disk that is full.
        if isinstance(error, (OSError, SafetensorError)) or type(error) is Exception:
            reason = isinstance(error, OSError) and error.strerror
            raise IvraError(f"{what}: {reason or first_line(error)}") from error
        raise
