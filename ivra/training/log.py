"""The run's log: one JSON object a line, as the loop goes."""

import json
import math
import os
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from ivra.errors import IvraError
from ivra.training.conflicts import Conflict, Gradients, conflicts, mean_gradients
from ivra.training.keeping import Validation
from ivra.training.loop import Hooks

LOG = "log.jsonl"


class LogEntry(TypedDict):
    """One line of the log.

    ``score`` and ``best`` stand on validations only, ``skipped`` (why) on steps that were left out,
    ``gradients`` on steps with several criteria.
    """

    stage: str
    step: int
    split: Literal["train", "valid"]
    terms: dict[str, float]
    gradients: NotRequired[Gradients]
    score: NotRequired[float | None]
    best: NotRequired[bool]
    skipped: NotRequired[str]


class JsonlLog(Hooks):
    """Appends every step's and validation's terms to ``path``, flushed line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gradients: list[Gradients] = []

    def on_gradients(self, stage: str, gradients: Gradients) -> None:
        self._gradients.append(gradients)

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        entry: LogEntry = {"stage": stage, "step": step, "split": "train", "terms": terms}
        if self._gradients:
            entry["gradients"] = mean_gradients(self._gradients)
            self._gradients = []
        self._append(entry)

    def on_skip(self, stage: str, step: int, reason: str) -> None:
        entry: LogEntry = {"stage": stage, "step": step, "split": "train", "terms": {}}
        self._gradients = []
        self._append(entry | {"skipped": reason})

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        self._append(
            {
                "stage": stage,
                "step": step,
                "split": "valid",
                "terms": validation.terms,
                "score": validation.score,
                "best": best,
            }
        )

    def _append(self, entry: LogEntry) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise IvraError(f"cannot write {self._path}: {error.strerror}") from error


def logged_conflicts(path: Path) -> list[Conflict]:
    """Every pair of criteria over stage 2, the worst first; none for a run of one criterion."""
    entries = read_log(path) if path.is_file() else []
    return conflicts(entry["gradients"]["cosines"] for entry in entries if "gradients" in entry)


def cut_log(path: Path, size: int) -> None:
    """Take from a log what was written after its first ``size`` bytes.

    Raises:
        IvraError: it is shorter than that, or cannot be written.
    """
    try:
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise IvraError(
                f"{path} has {found} bytes, but had {size} when the checkpoint was saved: copy the "
                "run again, or train anew under another name"
            )
        if found > size:
            os.truncate(path, size)
    except OSError as error:
        raise IvraError(f"cannot write {path}: {error.strerror}") from error


def read_log(path: Path) -> list[LogEntry]:
    """The entries of a log; a last line cut off by a kill is left out.

    Raises:
        IvraError: any other line that is none of ours, by its number.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise IvraError(f"cannot read {path}: {error.strerror}") from error
    entries: list[LogEntry] = []
    for number, line in enumerate(lines, start=1):
        try:
            entry: LogEntry = json.loads(line)
            entries.append({**entry, "terms": _finite(entry["terms"])})
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            if number < len(lines):
                raise IvraError(f"{path}:{number}: no line of a training log") from error
    return entries


def _finite(terms: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in terms.items() if math.isfinite(value)}
