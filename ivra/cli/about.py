"""``ivra plugins`` and ``ivra env``."""

import click
from rich.table import Table

from ivra.backbones import FAMILIES, TINY
from ivra.cli.console import console
from ivra.explainers import STATIC, Explainer, ModuleExplainer
from ivra.losses import known_criteria
from ivra.training import versions
from ivra.version import __version__


@click.command("plugins")
def plugins_command() -> None:
    """List criteria with their options, explainers and backbones, and who brings each.

    Options stand with their default, then the other choices.
    """
    own = f"ivra {__version__}"
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("kind", "name", "package", "what it is"):
        table.add_column(title)
    for known in known_criteria().values():
        summary = (known.criterion.__doc__ or "").strip().partition("\n")[0]
        table.add_row("criterion", known.name, known.package, summary)
        for option in known.criterion.options().values():
            table.add_row("  option", f"{known.name}.{option.name}", "", option.values)
    explainers: list[type[Explainer]] = [ModuleExplainer, *STATIC.values()]
    for explainer in explainers:
        table.add_row("explainer", explainer.name, own, explainer.summary)
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
