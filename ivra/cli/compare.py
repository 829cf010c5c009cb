"""``ivra compare``."""

import click

from ivra.api import compare, write_comparison
from ivra.cli.console import comma_separated, console, different_files, preferring, quiet
from ivra.cli.rows import given_rows, output_options, row_options
from ivra.explainers import ModuleExplainer, check_explainers
from ivra.reports import compare_json, render_comparison
from ivra.reports.results import EXPLAINER_TITLES
from ivra.storage import write_json_atomic
from ivra.training import load_run

ROWS = 5


@click.command("compare")
@click.argument("run", default="runs/latest", type=click.Path(path_type=str))
@row_options
@click.option(
    "--rows", type=click.IntRange(1), default=ROWS, show_default=True, metavar="N", help="at most"
)
@click.option(
    "--explainers",
    default="ivra,attention,input-x-gradient,random",
    show_default=True,
    help="with commas; a line each",
)
@output_options
def compare_command(
    run: str,
    texts: tuple[str, ...],
    pairs: tuple[str, ...],
    data: str | None,
    split: str,
    rows: int,
    explainers: str,
    explain_batch_tokens: int,
    preference: dict[str, float] | None,
    device: str,
    html_path: str | None,
    json_path: str | None,
) -> None:
    """Show a few rows of RUN (default: the latest) explained by several explainers.

    Each line is one explainer's scores over the same text, with its comprehensiveness and
    sufficiency on that row. Give texts with --text, questions with --question and --context, or
    a file with --data.
    """
    different_files(html=html_path, json=json_path)
    names = comma_separated(explainers)
    check_explainers(names, (ModuleExplainer.name,))
    quiet()
    loaded, given = given_rows(
        lambda: preferring(load_run(run, device), preference), texts, pairs, data, split, rows
    )
    compared = compare(loaded, given, names, batch_tokens=explain_batch_tokens)
    console.print(render_comparison(compared, EXPLAINER_TITLES))
    if json_path is not None:
        write_json_atomic(json_path, compare_json(compared))
    if html_path is not None:
        write_comparison(html_path, loaded, compared)
