"""The options of ``ivra eval`` that choose an AOPC."""

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

import click

from ivra.errors import IvraError
from ivra.evaluation import CHOICES, PRESETS, AopcSettings, aopc_settings

HELP = {
    "cut": "how t_k is cut",
    "rounding": "how many tokens k% are",
    "ranked": "what is counted and ranked",
    "negative": "scores below 0",
    "granularity": "what is removed at once",
    "word_score": "of a word, over its tokens",
    "protected": "tokens that stay",
    "removal": "how tokens are removed",
    "normaliser": "1/|bins|, 1/(|bins|+1), or the bins that differ",
    "null": "input without evidence (normalised figures)",
    "guard": "against a null difference of 0",
}
_KEY = "ivra.aopc"
_Command = TypeVar("_Command", bound=Callable[..., object])


def _remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta.setdefault(_KEY, {})[str(parameter.name).removeprefix("aopc_")] = value


def aopc_options(command: _Command) -> _Command:
    """``--aopc-preset``, ``--aopc-bins`` and one option for each choice.

    They are no parameters of the command: :func:`chosen_aopc` reads them.
    """
    for name in reversed([field.name for field in fields(AopcSettings) if field.name in CHOICES]):
        command = click.option(
            f"--aopc-{name.replace('_', '-')}",
            type=click.Choice(CHOICES[name]),
            callback=_remember,
            expose_value=False,
            help=f"{HELP[name]}  [default: {CHOICES[name][0]}]",
        )(command)
    command = click.option(
        "--aopc-bins",
        metavar="K,K,...",
        callback=_remember,
        expose_value=False,
        help="percentages or thresholds  [default: the run's]",
    )(command)
    return click.option(
        "--aopc-preset",
        type=click.Choice(list(PRESETS)),
        callback=_remember,
        expose_value=False,
        help="all of the following as another project has it",
    )(command)


def chosen_aopc(context: click.Context) -> AopcSettings:
    """What the options of :func:`aopc_options` ask for.

    Raises:
        IvraError: bins that are no numbers, or out of range.
    """
    chosen: dict[str, object] = dict(context.meta.get(_KEY, {}))
    preset = chosen.pop("preset", None)
    if "bins" in chosen:
        text = str(chosen["bins"])
        try:
            chosen["bins"] = tuple(float(part) for part in text.split(",") if part.strip())
        except ValueError as error:
            raise IvraError(
                f"--aopc-bins is '{text}': expected numbers with commas between, as in 1,5,10"
            ) from error
    return aopc_settings(None if preset is None else str(preset), chosen)
