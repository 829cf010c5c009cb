"""``ivra train``."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo
from rich.table import Table

from ivra.cli.console import Bars, bars, console, quiet
from ivra.errors import IvraError
from ivra.losses import known_criteria
from ivra.training import Run, TrainConfig, make_config, read_config, resume, train
from ivra.training.conflicts import conflict_line
from ivra.training.devices import is_main
from ivra.training.log import LOG, logged_conflicts, read_log


def _kind(annotation: object) -> "click.ParamType[Any, Any]":
    """What click converts a flag to; lists are given with commas and stay text."""
    origin, options = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _kind(next(option for option in options if option is not type(None)))
    if origin is Annotated:
        return _kind(options[0])
    if origin is Literal:
        return click.Choice(options)
    if annotation is int:
        return click.INT
    return click.FLOAT if annotation is float else click.STRING


def _flag(name: str, field: FieldInfo) -> click.Option:
    if name == "options":
        return click.Option(
            ["--option", "option"],
            multiple=True,
            metavar="CRITERION.NAME=VALUE",
            help=f"{field.description}; repeatable, ivra plugins lists them",
        )
    if field.default == {}:
        return click.Option(
            [f"--{name.replace('_', '-')}", name],
            multiple=True,
            metavar="CRITERION=NUMBER",
            help=f"{field.description}; repeatable",
        )
    default = field.default
    if field.annotation is bool:
        switch = f"--{name.replace('_', '-')}/--no-{name.replace('_', '-')}"
        return click.Option([switch, name], default=None, help=field.description)
    if isinstance(default, tuple):
        default = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in default)
    shown = "" if default is None else f"  [default: {default}]"
    return click.Option(
        [f"--{name.replace('_', '-')}", name],
        type=_kind(field.annotation),
        help=f"{field.description}{shown}",
    )


AROUND = ("before", "after")


def _with_options(options: object, given: tuple[str, ...]) -> object:
    """The ``options`` of a file with those of the command line, which win."""
    merged: object = options
    for text in given:
        left, equals, value = text.partition("=")
        criterion, dot, name = left.strip().partition(".")
        if not (equals and dot and criterion and name):
            raise IvraError(f"--option {text}: expected criterion.option=value, as in comp.form=kl")
        if not isinstance(merged, dict) or not isinstance(merged.get(criterion, {}), dict):
            return merged  # of no use: the configuration names what is wrong with it
        own = merged.get(criterion, {}) | {name.strip(): value.strip()}
        merged = merged | {criterion: own}
    return merged


def _run(
    config_file: str | None,
    resumed: str | None,
    output: str | None,
    name: str | None,
    device: str | None,
    checkpoint_every: str | None,
    option: tuple[str, ...],
    **flags: object,
) -> None:
    values = read_config(config_file) if config_file is not None else {}
    given = {key: ",".join(v) if isinstance(v, tuple) else v for key, v in flags.items() if v != ()}
    values |= {key: value for key, value in given.items() if value is not None}
    if option or "options" in values:
        values["options"] = _with_options(values.get("options", {}), option)
    quiet()
    progress = bars()
    hooks = (Bars(progress),)
    try:
        if resumed is None:
            run = train(
                make_config(values, config_file or "command line"),
                output="runs" if output is None else output,
                name=name,
                device=device or "cpu",
                hooks=hooks,
                checkpoint_every=checkpoint_every,
            )
        else:
            _check_resumed(resumed, output, name)
            run = resume(
                resumed,
                given=values,
                device=device,
                hooks=hooks,
                checkpoint_every=checkpoint_every,
            )
    finally:
        progress.stop()
    if not is_main():
        return
    _report(run)
    if run.record["interrupted"]:
        raise KeyboardInterrupt(
            f"the best weights so far are kept in {run.path}; go on with 'ivra train --resume "
            f"{run.path}'"
        )


def _check_resumed(resumed: str, output: str | None, name: str | None) -> None:
    for flag, value in (("--output", output), ("--name", name)):
        if value is not None:
            raise IvraError(f"--resume {resumed} goes on in its own folder: leave {flag} out")


def _report(run: Run) -> None:
    found = [
        entry
        for entry in read_log(run.path / LOG)
        if entry["stage"] == "criteria" and entry["split"] == "valid"
    ]
    best = [entry for entry in found if entry["best"]]
    if best:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for title in ("on validation rows", "untrained", "trained", "better is"):
            table.add_column(title, justify="left" if title.startswith("on") else "right")
        for key, after in best[-1]["terms"].items():
            known = known_criteria().get(key)
            better = known.criterion.better if known else "higher"
            before = found[0]["terms"].get(key)
            shown = "undefined" if before is None else f"{before:.3f}"
            table.add_row(key, shown, f"{after:.3f}", better)
        console.print(table)
    line = conflict_line(logged_conflicts(run.path / LOG))
    if line is not None:
        console.print(line, highlight=False, soft_wrap=True)
    measure = run.backbone.task.measure
    right = run.record[measure]
    assert isinstance(right, dict)
    shares = ("-" if share is None else f"{share:.3f}" for share in map(right.get, AROUND))
    measure = measure.replace("_", " ")
    console.print("{} {} before the criteria, {} after".format(measure, *shares))
    console.print(f"run written to {run.path}", soft_wrap=True, highlight=False)
    console.print("[dim]next: ivra eval   or   ivra explain --text '...'[/dim]")


train_command = click.Command(
    "train",
    callback=_run,
    help="Train explanations by one or more criteria and write runs/<name>.\n\n"
    "Stage 1 fine-tunes the model on the task if its head is new; stage 2 trains the attention "
    "module by the criteria and keeps the best iteration. Every option from --criteria on can "
    "stand in a YAML file (eval_data: dev.jsonl); options on the command line win.",
    params=[
        click.Option(
            ["--config", "config_file"],
            type=click.Path(dir_okay=False, path_type=str),
            help="YAML file of options",
        ),
        click.Option(
            ["--resume", "resumed"],
            metavar="RUN",
            help="go on with a run that was killed or interrupted, with its own options",
        ),
        click.Option(["--output"], help="folder of runs  [default: runs]"),
        click.Option(["--name"], help="the run's folder  [default: criteria, model, seed, time]"),
        click.Option(
            ["--device"], help="cpu, cuda, mps, ...  [default: cpu, or the resumed run's]"
        ),
        click.Option(
            ["--checkpoint-every"],
            metavar="STEPS|TIME",
            help="save what --resume goes on from besides validations: every so many steps (100) "
            "or so often (90s, 10m, 1h); never: not even then",
        ),
        *(_flag(name, field) for name, field in TrainConfig.model_fields.items()),
    ],
)
