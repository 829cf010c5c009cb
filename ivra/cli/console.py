"""Where the commands print, and progress bars for the training loop."""

import logging
import warnings
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from transformers.utils import logging as transformers_logging

from ivra.errors import IvraError
from ivra.training import Hooks, Run
from ivra.training.pairs import numbers_of

console = Console()
messages = Console(stderr=True)

STAGES = {"finetune": "stage 1: the task", "criteria": "stage 2: the criteria"}


def quiet() -> None:
    """Silence progress bars and notices of the libraries underneath."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|captum|peft|bitsandbytes)\.")


def comma_separated(text: str) -> tuple[str, ...]:
    """The names of ``"a, b"``; empty ones are left out."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


PREFERENCE = "how much each criterion counts, of a run of --combine preference"


def preference(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> dict[str, float] | None:
    """The numbers of ``comp=0.7,suff=0.3``."""
    found = numbers_of(text)
    if not isinstance(found, dict):
        return None
    try:
        return {name: float(value) for name, value in found.items()}
    except ValueError as error:
        raise IvraError(
            f"--preference {text}: expected numbers, as in comp=0.7,suff=0.3"
        ) from error


def preferring(run: Run, shares: dict[str, float] | None) -> Run:
    """``run`` explaining by ``shares``, or as it is without."""
    return run if shares is None else run.preferring(shares)


def different_files(**paths: str | None) -> None:
    """Raise :class:`IvraError` where two options name the same file."""
    named: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        place, flag = Path(path).resolve(), "--" + option.replace("_", "-")
        if place in named:
            raise IvraError(f"{named[place]} and {flag} both name {path}: expected two files")
        named[place] = flag


def bars() -> Progress:
    """Progress bars on standard error, with the time left and the current terms.

    Not started yet, and silent where standard error is no terminal, so that an error stays the
    one line there.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[terms]}"),
        console=messages,
        disable=not messages.is_terminal,
    )


def figures(terms: dict[str, float]) -> str:
    """``suff 0.123  accuracy 0.950``."""
    return "  ".join(f"{name} {value:.3f}" for name, value in terms.items())


class Bars(Hooks):
    """A bar for each stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def on_begin(self, stage: str, steps: int) -> None:
        """A new bar."""
        self._progress.start()
        self._task = self._progress.add_task(STAGES[stage], total=steps, terms="")

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        """Move on, and show the terms."""
        assert self._task is not None
        self._progress.update(self._task, completed=step, terms=figures(terms))

    def on_skip(self, stage: str, step: int, reason: str) -> None:
        """Move on, and say why there is nothing to show."""
        assert self._task is not None
        self._progress.update(self._task, completed=step, terms=f"skipped: {reason}")
