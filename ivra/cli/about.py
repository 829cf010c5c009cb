"""``ivra plugins`` and ``ivra env``."""

import click
from rich.table import Table

from ivra.backbones import FAMILIES, TINY
from ivra.cli.console import console
from ivra.contract import CLAUSES, check_criterion
from ivra.errors import IvraError, unknown_name
from ivra.explainers import ModuleExplainer, explainer_options, known_explainers
from ivra.losses import known_criteria
from ivra.training import versions
from ivra.version import __version__


@click.command("plugins")
@click.option("--check", metavar="NAME", help="Hold the criterion NAME to the contract.")
def plugins_command(check: str | None) -> None:
    """List criteria with their options, explainers and backbones, and who brings each.

    Options stand with their default, then the other choices. With --check, print one line a
    clause of the contract instead: pass, fail or not applicable. The exit code is 0 if all hold,
    else 2.
    """
    if check is None:
        _list()
    else:
        _check(check)


def _check(name: str) -> None:
    known = known_criteria()
    if name not in known:
        raise unknown_name("criterion", name, list(known))
    broken = 0
    for clause in CLAUSES:
        (verdict,) = check_criterion(known[name].criterion.build, (clause,))
        broken += verdict.outcome == "fail"
        click.echo(f"{verdict.outcome:16}{verdict.clause:16}{' '.join(verdict.detail.split())}")
    if broken:
        raise IvraError(
            f"criterion '{name}' of {known[name].package} breaks {broken} of {len(CLAUSES)} "
            "clauses: mend what the lines above say"
        )


def _list() -> None:
    own = f"ivra {__version__}"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("kind", "name", "package", "what it is"):
        table.add_column(title)
    for known in known_criteria().values():
        summary = (known.criterion.__doc__ or "").strip().partition("\n")[0]
        table.add_row("criterion", known.name, known.package, summary)
        for option in known.criterion.options().values():
            table.add_row("  option", f"{known.name}.{option.name}", "", option.values)
    table.add_row("explainer", ModuleExplainer.name, own, ModuleExplainer.summary)
    for name, explainer, package in known_explainers().values():
        summary = explainer.summary or (explainer.__doc__ or "").strip().partition("\n")[0]
        table.add_row("explainer", name, package, summary)
        for option in explainer_options(explainer).values():
            table.add_row("  option", f"{name}:{option.name}", "", option.values)
    for family in FAMILIES.values():
        kind = "decoder" if family.causal else "encoder"
        table.add_row("backbone", family.model_type, own, f"{kind}, declared")
    table.add_row(
        "backbone", "any other", own, "encoder or decoder on transformers' attention interface"
    )
    for name in TINY:
        table.add_row("model", name, own, "tiny, random weights, no download")
    console.print(table)


@click.command("env")
def env_command() -> None:
    """Print versions for a bug report."""
    for name, version in versions().items():
        console.print(f"{name:14} {version}", highlight=False)
