"""What ``ivra study`` and ``ivra sweep`` share: options, progress, plans, tables, failures."""

import time

import yaml
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table as RichTable

from ivra.cli.console import bars, comma_separated, console, messages
from ivra.errors import IvraError
from ivra.studies import Planned, StudyResult, Table, Watch


class StudyBar(Watch):
    """A bar over the cells that are left, and a line for each that is done."""

    def __init__(self, left: int) -> None:
        self._bar = bars()
        self._task: TaskID = self._bar.add_task("cells", total=left, terms="")
        self._name = ""
        self._since = time.monotonic()

    def __enter__(self) -> "StudyBar":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def on_cell(self, name: str) -> None:
        """A cell begins."""
        self._name, self._since = name, time.monotonic()
        self.on_part("")

    def on_part(self, what: str) -> None:
        """What is being done for it."""
        self._bar.update(self._task, terms=escape(f"{self._name}: {what}" if what else self._name))

    def on_done(self, name: str, failed: str | None) -> None:
        """It is finished, or failed."""
        self._bar.advance(self._task)
        state = "failed" if failed else f"{time.monotonic() - self._since:.0f} s"
        console.print(f"{name}  {state}", highlight=False, soft_wrap=True)


def pairs_of(option: str, given: tuple[str, ...]) -> dict[str, object]:
    """``KEY=VALUE``, the value as YAML reads it: ``lr=0.1``, ``aopc={cut: min-max}``."""
    found: dict[str, object] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise IvraError(f"{option} {text}: expected key=value, as in epochs=3")
        try:
            found[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError) as error:
            raise IvraError(f"{option} {text[:80]}: the value is not YAML") from error
    return found


def seeds_of(text: str) -> list[int]:
    """``0,1`` as numbers."""
    try:
        return [int(seed) for seed in comma_separated(text)]
    except ValueError as error:
        raise IvraError(f"--seeds is '{text}': expected numbers, as in 0,1") from error


def print_plan(planned: list[Planned]) -> None:
    """The cells, which are finished, and how long the others should take."""
    for cell in planned:
        state = "finished" if cell.finished else _about(cell.seconds)
        console.print(f"{cell.name}  {state}", highlight=False, soft_wrap=True)
    left = [cell for cell in planned if not cell.finished]
    known = [cell.seconds for cell in left if cell.seconds is not None]
    text = f"{len(left)} of {len(planned)} cells to run"
    if known:
        text += f", {_about(sum(known))} for {len(known)} of them as finished ones took"
    if len(known) < len(left):
        text += f"; time unknown for {len(left) - len(known)}, none of their kind is finished"
    console.print(text, highlight=False, soft_wrap=True)


def _about(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    if seconds < 120:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 7200 else f"about {seconds / 3600:.1f} h"


def rich_table(table: Table) -> RichTable:
    """The table for the terminal: the best bold, the second underlined."""
    shown = RichTable(box=None, pad_edge=False, header_style="dim")
    shown.add_column("")
    for column in range(len(table.columns)):
        shown.add_column(escape(table.headings[column]), justify="right")
    places = [table.places(column) for column in range(len(table.columns))]
    styles = {1: "bold", 2: "underline"}
    for number, row in enumerate(table.rows):
        cells = []
        for column, ranks in enumerate(places):
            printed = table.printed(number, column)
            figure, spread = printed or ("\N{EN DASH}", "")
            style = styles.get(ranks[number] or 0)
            text = f"[{style}]{figure}[/{style}]" if style else figure
            cells.append(
                f"{text} [dim]{'' if table.median else '±'}{spread}[/dim]" if spread else text
            )
        shown.add_row(escape(row.name), *cells)
    return shown


def report_failures(found: StudyResult) -> None:
    """Say which cells failed and why.

    Raises:
        IvraError: one did.
    """
    for cell, reason in found.failures.items():
        messages.print(
            f"failed: {cell}: {' '.join(reason.split())}", highlight=False, soft_wrap=True
        )
    if found.failures:
        total = len(found.matrix.cells)
        raise IvraError(
            f"{len(found.failures)} of {total} cells failed: mend what the lines above say and "
            "run the same command again; the finished ones stay"
        )
