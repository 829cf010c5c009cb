"""A run's folder: what is in it, how it is written and read back."""

import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ivra.attention import AttentionSizes, InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.errors import IvraError
from ivra.storage import write_json_atomic, write_text_atomic
from ivra.training.config import TrainConfig, make_config, read_config
from ivra.training.task import Encoder

CONFIG, RECORD, MODULE, WEIGHTS, LOG = (
    "config.yaml",
    "run.json",
    "module.json",
    "module.safetensors",
    "log.jsonl",
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

    @property
    def encoder(self) -> Encoder:
        """Turns rows into batches of this run's backbone."""
        return Encoder(self.backbone, self.config.max_length, self.config.batch_size)


def new_folder(output: Path, name: str) -> Path:
    """Make ``output/name``.

    Raises:
        IvraError: it exists, or cannot be made.
    """
    path = output / name
    if os.path.lexists(path):
        raise IvraError(f"{path} exists already: choose another name with --name, or remove it")
    try:
        output.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except OSError as error:
        raise IvraError(f"cannot make the run folder {path}: {error.strerror}") from error
    return path


def point_latest(path: Path) -> None:
    """Let ``latest`` beside ``path`` point at it, in one step."""
    link = path.parent / f".{secrets.token_hex(4)}"
    try:
        link.symlink_to(path.name)
        os.replace(link, path.parent / LATEST)
    except OSError as error:
        link.unlink(missing_ok=True)
        raise IvraError(f"cannot point {path.parent / LATEST} at the run: {error}") from error


def save_config(path: Path, config: TrainConfig) -> None:
    """The merged configuration as YAML."""
    values = config.model_dump(mode="json")
    write_text_atomic(path / CONFIG, yaml.safe_dump(values, sort_keys=False))


def save_backbone(path: Path, backbone: Backbone, folder: str = MODEL) -> None:
    """The model and its tokenizer, readable by transformers alone."""
    with _one_line(f"cannot save the model to {path / folder}"):
        backbone.model.save_pretrained(path / folder)
        backbone.tokenizer.save_pretrained(path / folder)
        for weights in (path / folder).glob("*.safetensors"):  # written for the owner alone
            shutil.copymode(path / folder / "config.json", weights)


def save_module(path: Path, module: InterpretableAttention) -> None:
    """The module's shape and weights (a temporary file, then a rename)."""
    write_json_atomic(path / MODULE, module.config())
    temporary = path / f".{secrets.token_hex(4)}.safetensors"
    tensors = {name: p.detach().cpu().contiguous() for name, p in module.named_parameters()}
    try:
        with _one_line(f"cannot save the attention module to {path}"):
            save_file(tensors, temporary)  # for the owner alone, whatever the umask
            shutil.copymode(path / MODULE, temporary)
            os.replace(temporary, path / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)


def save_record(path: Path, record: dict[str, object]) -> None:
    """What the run did, as JSON."""
    write_json_atomic(path / RECORD, record)


def load_run(path: str | Path = "runs/latest") -> Run:
    """Read a run back.

    Raises:
        IvraError: no folder there, or one without configuration, model or weights.
    """
    folder = Path(path)
    if not folder.exists():
        hint = "train one with 'ivra train'" if folder.name == LATEST else "check the path"
        raise IvraError(f"no run at {folder}: {hint}")
    folder = folder.resolve()
    for part in (CONFIG, MODULE, WEIGHTS, "model"):
        if not (folder / part).exists():
            raise IvraError(
                f"{folder} has no {part}: expected a run folder of 'ivra train' that got as far "
                "as its first weights"
            )
    config = make_config(read_config(folder / CONFIG), str(folder / CONFIG))
    backbone = load_backbone(str(folder / "model"), None)
    module = _load_module(folder)
    record = _read_json(folder / RECORD) if (folder / RECORD).exists() else {}
    return Run(folder, config, backbone.eval(), module.to(backbone.device), record)


def load_plain(run: Run) -> Backbone | None:
    """The model of ``run`` before the criteria, on the same device; ``None`` if none was kept.

    It is kept where the criteria train the backbone; elsewhere it is the run's own.
    """
    if run.config.train == "module":
        return run.backbone
    if not (run.path / PLAIN).is_dir():
        return None
    return load_backbone(str(run.path / PLAIN), None).to(run.backbone.device).eval()


def _load_module(folder: Path) -> InterpretableAttention:
    shape = _read_json(folder / MODULE)
    try:
        module = InterpretableAttention(
            AttentionSizes(**shape["sizes"]),
            tuple(shape["levels"]),
            shape["reading"],
            shape["coefficients_norm"],
            shape["saliency_norm"],
        )
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, RuntimeError, SafetensorError, OSError) as error:
        raise IvraError(
            f"{folder}: {MODULE} and {WEIGHTS} do not fit ({str(error).splitlines()[0]}): the run "
            "is damaged, train it again"
        ) from error
    return module.eval()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IvraError(f"cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise IvraError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


class _one_line:  # noqa: N801 - reads as a phrase in a with statement
    """Turns the errors of writing files into one :class:`IvraError`."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, SafetensorError)):
            raise IvraError(f"{self._what}: {str(error).splitlines()[0]}") from error
