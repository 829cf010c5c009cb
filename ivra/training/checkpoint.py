"""What a run is taken up from: one checkpoint, replaced in one step, and gone when it is finished.

A folder of three files. ``state.json`` holds everything but tensors, ``state.safetensors`` the
tensors by name, ``SHA256SUMS`` the checksums of both. Nothing is pickled, and names of tensors are
never names of files.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ivra.errors import IvraError, first_line
from ivra.storage import current, replace_together, write_text_atomic
from ivra.training.checksums import SUMS
from ivra.training.devices import ALONE, Devices
from ivra.training.log import LOG
from ivra.training.packing import pack, unpack
from ivra.training.run import one_line
from ivra.training.state import State

FOLDER = "checkpoint"
FACTS, TENSORS = "state.json", "state.safetensors"
FORMAT: Literal[1] = 1


class Checkpoint(BaseModel):
    """Where a run stood, as ``state.json`` says it.

    ``config`` and ``data`` are what it must be resumed with; ``log`` is how many bytes of
    the log belong to it; ``finetune``, ``before`` and ``seconds`` are what the record will say of
    what lies behind it. ``state`` is the state of the loop of ``stage`` after ``step``.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = FORMAT
    stage: Literal["finetune", "criteria"]
    step: int = Field(ge=0)
    config: dict[str, Any]
    data: dict[str, dict[str, Any]]
    device: str
    log: int = Field(ge=0)
    finetune: dict[str, Any] | None
    before: float | None
    seconds: float = Field(ge=0)
    resumed: list[dict[str, Any]]
    processes: int = Field(ge=1)
    state: dict[str, Any]


class Every(NamedTuple):
    """How often a checkpoint is saved besides validations; ``never``: not even then."""

    steps: int | None = None
    seconds: float | None = None
    never: bool = False


def parse_every(text: str | int | None) -> Every:
    """``100`` (steps), ``"90s"``, ``"10m"``, ``"1h"`` or ``"never"``; by default validations alone.

    Raises:
        IvraError: anything else.
    """
    if text is None:
        return Every()
    if str(text) == "never":
        return Every(never=True)
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smh]?)", str(text))
    if found is None:
        raise IvraError(
            f"checkpoint_every is '{text}': expected a number of steps (100), a time (90s, 10m, "
            "1h) or never"
        )
    count, unit = int(found[1]), found[2]
    if not unit:
        return Every(steps=count)
    return Every(seconds=count * {"s": 1.0, "m": 60.0, "h": 3600.0}[unit])


class Checkpoints:
    """Saves the state of a run's loops into its folder; of several processes, the first.

    ``facts()`` is what a checkpoint holds of the run itself: the fields of :class:`Checkpoint` but
    stage, step, log and state.
    """

    def __init__(
        self,
        path: Path,
        every: Every,
        facts: Callable[[], dict[str, Any]],
        devices: Devices = ALONE,
    ) -> None:
        self._path = path
        self._every = every
        self._facts = facts
        self._devices = devices
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether so many steps, or so much time, have gone by."""
        if self._every.seconds is not None:
            late = time.monotonic() - self._last >= self._every.seconds
            return bool(self._devices.values(late)[0])
        return self._every.steps is not None and step % self._every.steps == 0

    def save(self, stage: str, step: int, state: State) -> None:
        """Put the state in the place of the last one, in one step.

        Raises:
            IvraError: it cannot be written, or a criterion's state holds what cannot be kept.
        """
        if not self._devices.is_main:
            return
        facts, tensors = pack(state)
        with one_line(f"cannot save the checkpoint to {self._path}"):
            size = _flushed(self._path / LOG)
            head = {"format": FORMAT, "stage": stage, "step": step, "log": size}
            text = json.dumps(head | self._facts() | {"state": facts})
            with replace_together(self._path) as staged:
                folder = staged / FOLDER
                folder.mkdir()
                write_text_atomic(folder / FACTS, text)
                save_file(tensors, folder / TENSORS)
                shutil.copymode(folder / FACTS, folder / TENSORS)
                write_text_atomic(folder / SUMS, _sums(folder))
        self._last = time.monotonic()


def has_checkpoint(path: Path) -> bool:
    """Whether a run can be taken up from a checkpoint."""
    return current(path, FOLDER).exists()


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint of a run's folder, its tensors in place; ``None`` if there is none.

    Raises:
        IvraError: it is not whole, not as it was saved, or none of ivra's.
    """
    folder = current(path, FOLDER)
    if not folder.exists():
        return None
    _check_files(folder)
    try:
        values = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        checkpoint = Checkpoint.model_validate(values)
        tensors = load_file(folder / TENSORS)
        state = unpack(checkpoint.state, {name: value.clone() for name, value in tensors.items()})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _foreign(folder, f"{place}: {first['msg'].lower()}") from error
    except (OSError, ValueError, RecursionError, SafetensorError, LookupError) as error:
        raise _foreign(folder, first_line(error)) from error
    return checkpoint.model_copy(update={"state": state})


def _check_files(folder: Path) -> None:
    try:
        said, found = (folder / SUMS).read_text(encoding="utf-8"), _sums(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise _foreign(folder, first_line(error)) from error
    if said != found:
        raise IvraError(
            f"{folder} is not as it was saved ({SUMS} says otherwise): copy the run again, or "
            "train anew under another name"
        )


def _sums(folder: Path) -> str:
    """What ``SHA256SUMS`` says of the two files: nothing more."""
    return "".join(f"{_sha256(folder / name)}  {name}\n" for name in (FACTS, TENSORS))


def _foreign(folder: Path, why: str) -> IvraError:
    return IvraError(
        f"{folder} is no checkpoint of this version of ivra ({why}): train anew under another name"
    )


def _flushed(path: Path) -> int:
    """Bring a log to the disk; its bytes."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
