"""``ivra study``."""

import os
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ivra.api import write_study_examples
from ivra.cli.console import comma_separated, console, quiet
from ivra.cli.studying import (
    StudyBar,
    pairs_of,
    print_plan,
    report_failures,
    rich_table,
    seeds_of,
)
from ivra.errors import IvraError, unknown_name
from ivra.studies import (
    PRESETS,
    SCALES,
    Study,
    make_study,
    plan,
    preset_study,
    read_study,
    run_study,
    tables_of,
    write_study,
)


def _changes(lists: dict[str, str | None], train: tuple[str, ...], judge: tuple[str, ...]) -> Any:
    changes: dict[str, object] = {
        key: list(comma_separated(value)) for key, value in lists.items() if value is not None
    }
    if "seeds" in changes:
        changes["seeds"] = seeds_of(str(lists["seeds"]))
    if "criteria" in changes:
        changes["criteria"] = [c.replace("+", ",") for c in str(lists["criteria"]).split(",")]
    changes["training"] = pairs_of("--train", train)
    changes["evaluation"] = pairs_of("--eval", judge)
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
    planned = plan(study, target, folder)
    if dry_run:
        print_plan(planned)
        return
    quiet()
    with StudyBar(sum(not cell.finished for cell in planned)) as bar:
        found = run_study(study, target, data_folder=folder, device=device, watch=bar)
    for table in tables_of(found, median):
        console.print(f"\n[bold]{escape(table.caption)}[/bold]", highlight=False, soft_wrap=True)
        console.print(rich_table(table))
    pages = write_study_examples(found, target) if study.plot == "examples" else []
    for path in [*write_study(found, target, median), *pages]:
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
    report_failures(found)
