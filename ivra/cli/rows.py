"""The rows that ``ivra explain`` and ``ivra compare`` are given."""

from collections.abc import Callable
from typing import Any

import click

from ivra.cli.console import PREFERENCE, preference
from ivra.data import Row
from ivra.errors import IvraError
from ivra.explainers import BATCH_TOKENS
from ivra.training import Run
from ivra.training.task import read_part

_OPTIONS = (
    click.option(
        "--text",
        "--question",
        "texts",
        multiple=True,
        help="a text, or a question; can be repeated",
    ),
    click.option(
        "--pair",
        "--context",
        "pairs",
        multiple=True,
        help="its second text (hypothesis, or the question's context), in order",
    ),
    click.option("--data", type=str, help="rows: a file, a folder or a data set"),
    click.option("--split", default="test", show_default=True, help="part of the data"),
)
_HOW = (
    click.option(
        "--explain-batch-tokens",
        default=BATCH_TOKENS,
        show_default=True,
        help="tokens of a batch of an explainer, its copies of rows included",
    ),
    click.option(
        "--preference", callback=preference, metavar="CRITERION=NUMBER,...", help=PREFERENCE
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps, ..."),
    click.option("--html", "html_path", type=click.Path(dir_okay=False), help="write a page"),
    click.option("--json", "json_path", type=click.Path(dir_okay=False), help="write the numbers"),
)


def _with(options: tuple[Callable[..., Any], ...], command: Callable[..., Any]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def row_options(command: Callable[..., Any]) -> Any:
    """Options that name rows, as :func:`given_rows` reads them."""
    return _with(_OPTIONS, command)


def output_options(command: Callable[..., Any]) -> Any:
    """How rows are explained, where, and what is written."""
    return _with(_HOW, command)


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
