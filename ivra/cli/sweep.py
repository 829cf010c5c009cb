"""``ivra sweep``."""

import os
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table as RichTable

from ivra.cli.console import comma_separated, console, quiet
from ivra.cli.studying import (
    StudyBar,
    pairs_of,
    print_plan,
    report_failures,
    rich_table,
    seeds_of,
)
from ivra.studies import (
    METHODS,
    SCALES,
    Sweep,
    plan,
    run_study,
    summary_lines,
    sweep_study,
    sweeps_of,
    write_sweep,
)
from ivra.studies.sweep import COMBINE, CRITERIA, METHOD
from ivra.studies.sweep_plots import percent


@click.command("sweep")
@click.option("--criteria", default=CRITERIA, show_default=True, help="whose subsets are trained")
@click.option(
    "--combine", default=",".join(COMBINE), show_default=True, help="with commas; a heat map each"
)
@click.option("--scale", type=click.Choice(list(SCALES)), default="cpu", show_default=True)
@click.option("--name", help="of the sweep, and its folder under studies")
@click.option("--output", type=click.Path(file_okay=False), help="folder  [default: studies/NAME]")
@click.option("--model", "models", metavar="M,M,...", help="tiny-electra, folders or hub ids")
@click.option("--data", metavar="D,D,...", help="sets of the data folder, or what ivra train takes")
@click.option("--data-folder", type=click.Path(), help="folder of data sets  [default: $IVRA_DATA]")
@click.option(
    "--method", type=click.Choice(list(METHODS)), default=METHOD, show_default=True, help="trained"
)
@click.option("--seeds", metavar="N,N,...", help="each is a fine-tuned model of its own")
@click.option("--train", multiple=True, metavar="KEY=VALUE", help="option of training; repeatable")
@click.option("--eval", "judge", multiple=True, metavar="KEY=VALUE", help="of ivra.EvalConfig")
@click.option("--dry-run", is_flag=True, help="print the cells and how long they should take")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps, ...")
def sweep_command(
    criteria: str,
    combine: str,
    scale: str,
    name: str | None,
    output: str | None,
    models: str | None,
    data: str | None,
    data_folder: str | None,
    method: str,
    seeds: str | None,
    train: tuple[str, ...],
    judge: tuple[str, ...],
    dry_run: bool,
    device: str,
) -> None:
    """Train every non-empty subset of the criteria, mixed in several ways, and compare.

    Writes a heat map of the average relative gain (ARG) against each criterion alone, the
    accuracies beside the plain fine-tuned model, and the front of the criteria. Like a study, it
    goes on where it was stopped: a finished cell is never run again.
    """
    changes: dict[str, object] = {"training": pairs_of("--train", train)}
    changes["evaluation"] = pairs_of("--eval", judge)
    lists = {"models": models, "data": data}
    changes |= {k: list(comma_separated(v)) for k, v in lists.items() if v is not None}
    changes |= {} if seeds is None else {"seeds": seeds_of(seeds)}
    changes |= {} if name is None else {"name": name}
    folder = data_folder or os.environ.get("IVRA_DATA") or None
    ways = comma_separated(combine)
    study = sweep_study(criteria, ways, scale, changes, folder, method)
    target = Path(output or Path("studies") / study.name)
    planned = plan(study, target, folder)
    if dry_run:
        print_plan(planned)
        return
    quiet()
    with StudyBar(sum(not cell.finished for cell in planned)) as bar:
        found = run_study(study, target, data_folder=folder, device=device, watch=bar)
    for sweep in sweeps_of(found):
        _show(sweep)
    for path in write_sweep(found, target):
        console.print(f"written to {path}", highlight=False, soft_wrap=True)
    report_failures(found)


def _show(sweep: Sweep) -> None:
    for method in sweep.methods:
        title = f"ARG in percent against one criterion alone: {sweep.model}, {method}"
        console.print(f"\n[bold]{escape(title)}[/bold]", highlight=False, soft_wrap=True)
        console.print(_gains(sweep, method))
    console.print(f"\n[bold]{escape(sweep.accuracy.caption)}[/bold]", highlight=False)
    console.print(rich_table(sweep.accuracy))
    for line in summary_lines(sweep):
        console.print(line, highlight=False, soft_wrap=True)


def _gains(sweep: Sweep, method: str) -> RichTable:
    """What is trained for in bold."""
    shown = RichTable(box=None, pad_edge=False, header_style="dim")
    shown.add_column("")
    for criterion in sweep.criteria:
        shown.add_column(criterion, justify="right")
    for subset in sweep.subsets():
        cells = [sweep.gain(method, subset, criterion) for criterion in sweep.criteria]
        texts = []
        for gain in cells:
            if gain is not None:
                text = "undef." if gain.arg.value is None else percent(gain.arg.value)
                texts.append(f"[bold]{text}[/bold]" if gain.member else text)
        if texts:
            shown.add_row(" + ".join(subset), *texts)
    return shown
