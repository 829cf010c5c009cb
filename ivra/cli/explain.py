"""``ivra explain``."""

import click

from ivra.api import explain, write_report
from ivra.cli.console import comma_separated, console, different_files, preferring, quiet
from ivra.cli.rows import given_rows, output_options, row_options
from ivra.explainers import ModuleExplainer, check_explainers
from ivra.reports import explain_json, render_rows
from ivra.storage import write_json_atomic
from ivra.training import load_run


@click.command("explain")
@click.argument("run", default="runs/latest", type=click.Path(path_type=str))
@row_options
@click.option("--rows", type=click.IntRange(1), metavar="N", help="at most this many rows")
@click.option("--explainers", default="ivra", show_default=True, help="with commas; side by side")
@output_options
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
