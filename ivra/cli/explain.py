"""``ivra explain``."""

from collections.abc import Callable

import click

from ivra.api import explain, write_report
from ivra.cli.console import (
    PREFERENCE,
    comma_separated,
    console,
    different_files,
    preference,
    preferring,
    quiet,
)
from ivra.data import Row
from ivra.errors import IvraError
from ivra.explainers import BATCH_TOKENS, ModuleExplainer, check_explainers
from ivra.reports import explain_json, render_rows
from ivra.storage import write_json_atomic
from ivra.training import Run, load_run
from ivra.training.task import read_part


def given_rows(
    load: Callable[[], Run],
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    data: str | None,
    split: str,
    rows: int | None,
) -> tuple[Run, list[str | tuple[str, str] | Row]]:
    """The run, loaded after a look at the options, and the rows that they name.

    Raises:
        IvraError: texts and a data set, neither of them, or texts without their second ones.
    """
    if bool(texts) == (data is not None):
        raise IvraError("expected either --text or --data, got " + ("both" if texts else "neither"))
    if pairs and len(pairs) != len(texts):
        raise IvraError(
            f"got {len(texts)} --text and {len(pairs)} --pair: give each text its second text"
        )
    loaded = load()
    if data is not None:
        return loaded, list(read_part(loaded.config, data, split)[:rows])
    return loaded, list(zip(texts, pairs, strict=True)) if pairs else list(texts)


@click.command("explain")
@click.argument("run", default="runs/latest", type=click.Path(path_type=str))
@click.option(
    "--text", "--question", "texts", multiple=True, help="a text, or a question; can be repeated"
)
@click.option(
    "--pair",
    "--context",
    "pairs",
    multiple=True,
    help="its second text (hypothesis, or the question's context), in order",
)
@click.option("--data", type=str, help="rows: a file, a folder or a data set")
@click.option("--split", default="test", show_default=True, help="part of the data")
@click.option("--rows", type=click.IntRange(1), metavar="N", help="at most this many rows")
@click.option("--explainers", default="ivra", show_default=True, help="with commas; side by side")
@click.option(
    "--explain-batch-tokens",
    default=BATCH_TOKENS,
    show_default=True,
    help="tokens of a batch of an explainer, its copies of rows included",
)
@click.option("--preference", callback=preference, metavar="CRITERION=NUMBER,...", help=PREFERENCE)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps, ...")
@click.option("--html", "html_path", type=click.Path(dir_okay=False), help="write a page")
@click.option("--json", "json_path", type=click.Path(dir_okay=False), help="write the numbers")
def explain_command(
    run: str,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    data: str | None,
    split: str,
    rows: int | None,
    explainers: str,
    explain_batch_tokens: int,
    preference: dict[str, float] | None,
    device: str,
    html_path: str | None,
    json_path: str | None,
) -> None:
    """Show which tokens decide the predictions of RUN (default: the latest).

    Give texts with --text, questions with --question and --context, or a file with --data.
    """
    different_files(html=html_path, json=json_path)
    names = comma_separated(explainers)
    check_explainers(names, (ModuleExplainer.name,))
    quiet()
    loaded, given = given_rows(
        lambda: preferring(load_run(run, device), preference), texts, pairs, data, split, rows
    )
    explained = explain(loaded, given, names, batch_tokens=explain_batch_tokens)
    console.print(render_rows(explained))
    if json_path is not None:
        write_json_atomic(json_path, explain_json(explained))
    if html_path is not None:
        write_report(html_path, loaded, explained)
