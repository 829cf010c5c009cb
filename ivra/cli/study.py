"""``ivra study``."""

import os
import time
from pathlib import Path
from typing import Any

import click
import yaml
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table as RichTable

from ivra.api import write_study_examples
from ivra.cli.console import bars, comma_separated, console, messages, quiet
from ivra.errors import IvraError, unknown_name
from ivra.studies import (
    PRESETS,
    SCALES,
    Planned,
    Study,
    Table,
    Watch,
    make_study,
    plan,
    preset_study,
    read_study,
    run_study,
    tables_of,
    write_study,
)


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


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, object]:
    """``KEY=VALUE``, the value as YAML reads it: ``lr=0.1``, ``aopc={cut: min-max}``."""
    found: dict[str, object] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise IvraError(f"{option} {text}: expected key=value, as in epochs=3")
        try:
            found[key.strip().replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise IvraError(f"{option} {text}: the value is not YAML") from error
    return found


def _changes(lists: dict[str, str | None], train: tuple[str, ...], judge: tuple[str, ...]) -> Any:
    changes: dict[str, object] = {
        key: list(comma_separated(value)) for key, value in lists.items() if value is not None
    }
    if "seeds" in changes:
        try:
            changes["seeds"] = [int(seed) for seed in str(lists["seeds"]).split(",")]
        except ValueError as error:
            raise IvraError(
                f"--seeds is '{lists['seeds']}': expected numbers, as in 0,1"
            ) from error
    if "criteria" in changes:
        changes["criteria"] = [c.replace("+", ",") for c in str(lists["criteria"]).split(",")]
    changes["training"] = _pairs("--train", train)
    changes["evaluation"] = _pairs("--eval", judge)
    return changes


def _study(
    what: str | None, scale: str | None, changes: dict[str, Any], folder: str | None
) -> Study:
    if what in PRESETS:
        return preset_study(what, scale or "cpu", changes, folder)
    if scale is not None:
        raise IvraError(f"--scale is for presets: expected one of {', '.join(PRESETS)}")
    if what is None:
        return make_study(changes, lambda keys: "command line")
    if Path(what).suffix not in (".yaml", ".yml") and not Path(what).exists():
        raise unknown_name("preset (or YAML file)", what, list(PRESETS))
    return read_study(what, changes)


@click.command("study")
@click.argument("what", required=False, metavar="[PRESET|FILE.yaml]")
@click.option("--scale", type=click.Choice(list(SCALES)), help="of a preset  [default: cpu]")
@click.option("--name", help="of the study, and its folder under studies")
@click.option("--output", type=click.Path(file_okay=False), help="folder  [default: studies/NAME]")
@click.option("--runs", type=click.Path(file_okay=False), help="folder  [default: OUTPUT/runs]")
@click.option("--model", "models", metavar="M,M,...", help="tiny-electra, folders or hub ids")
@click.option("--data", metavar="D,D,...", help="sets of the data folder, or what ivra train takes")
@click.option("--data-folder", type=click.Path(), help="folder of data sets  [default: $IVRA_DATA]")
@click.option("--explainers", metavar="E,E,...", help="explainers without training")
@click.option("--methods", metavar="M,M,...", help="ways of training")
@click.option("--criteria", metavar="C,C,...", help="trained for, one by one; sim+suff for both")
@click.option("--columns", metavar="F,F,...", help="figures of the tables")
@click.option("--seeds", metavar="N,N,...", help="each is a fine-tuned model of its own")
@click.option("--train", multiple=True, metavar="KEY=VALUE", help="option of training; repeatable")
@click.option("--eval", "judge", multiple=True, metavar="KEY=VALUE", help="of ivra.EvalConfig")
@click.option("--median", is_flag=True, help="median and quartiles, not mean and standard error")
@click.option("--dry-run", is_flag=True, help="print the cells and how long they should take")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps, ...")
def study_command(
    what: str | None,
    scale: str | None,
    name: str | None,
    output: str | None,
    runs: str | None,
    models: str | None,
    data: str | None,
    data_folder: str | None,
    explainers: str | None,
    methods: str | None,
    criteria: str | None,
    columns: str | None,
    seeds: str | None,
    train: tuple[str, ...],
    judge: tuple[str, ...],
    median: bool,
    dry_run: bool,
    device: str,
) -> None:
    """Run a matrix of trainings and evaluations, and write its tables and pictures.

    The study is a table or figure of the IvRA paper (table1 to table4, table6, table7, fig3,
    fig6 to fig10), a YAML file, or what the options say; options win. It goes on where it was
    stopped: a finished cell is never run again.
    """
    lists = {
        "models": models,
        "data": data,
        "explainers": explainers,
        "methods": methods,
        "criteria": criteria,
        "columns": columns,
        "seeds": seeds,
    }
    changes = _changes(lists, train, judge)
    if name is not None:
        changes["name"] = name
    folder = data_folder or os.environ.get("IVRA_DATA") or None
    study = _study(what, scale, changes, folder)
    target = Path(output or Path("studies") / study.name)
    planned = plan(study, target, folder, runs)
    if dry_run:
        _print_plan(planned)
        return
    quiet()
    with StudyBar(sum(not cell.finished for cell in planned)) as bar:
        found = run_study(study, target, data_folder=folder, runs=runs, device=device, watch=bar)
    for table in tables_of(found, median):
        console.print(f"\n[bold]{escape(table.caption)}[/bold]", highlight=False, soft_wrap=True)
        console.print(_rich(table))
    pages = write_study_examples(found, target) if study.plot == "examples" else []
    for path in [*write_study(found, target, median), *pages]:
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
    for cell, reason in found.failures.items():
        messages.print(
            f"failed: {cell}: {' '.join(reason.split())}", highlight=False, soft_wrap=True
        )
    if found.failures:
        total = len(planned)
        raise IvraError(
            f"{len(found.failures)} of {total} cells failed: mend what the lines above say and "
            "run the same command again; the finished ones stay"
        )


def _print_plan(planned: list[Planned]) -> None:
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


def _rich(table: Table) -> RichTable:
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
