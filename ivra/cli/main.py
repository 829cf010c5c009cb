"""The command line: parse, call one public function, print."""

from importlib import import_module

import click

from ivra.errors import IvraError
from ivra.version import __version__

COMMANDS = {
    "train": ("ivra.cli.train", "Train explanations by one or more criteria."),
    "eval": ("ivra.cli.evaluate", "Measure a run's explanations beside the usual baselines."),
    "explain": ("ivra.cli.explain", "Show which tokens decide, for a text or a file."),
    "compare": ("ivra.cli.compare", "Explainers side by side on a few rows."),
    "study": ("ivra.cli.study", "Run many trainings at once; the tables of the paper."),
    "sweep": ("ivra.cli.sweep", "Every subset of the criteria, mixed in several ways."),
    "plugins": ("ivra.cli.about", "List criteria, explainers and backbones; check a criterion."),
    "env": ("ivra.cli.about", "Print versions for a bug report."),
}


class OneLine(click.ClickException):
    """A mistake the user can mend: one line, exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        """Print ``ivra: message`` to standard error."""
        click.echo(f"ivra: {' '.join(self.message.split())}", err=True)


class Stopped(OneLine):
    """Ctrl-C: one line, and the exit code that shells use for it."""

    exit_code = 130


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: the machine's, or an accelerator's (as PyTorch puts it)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text


class Commands(click.Group):
    """Imports a command when it is called, so that help and version need no PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in their order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called ``cmd_name``, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with their one-line help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a mistake of the user's becomes one line."""
        try:
            return super().invoke(ctx)
        except IvraError as error:
            raise OneLine(str(error)) from error
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            raise OneLine(error.format_message()) from error
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise OneLine(
                "out of memory: expected less at once; lower --batch-size or --max-length for "
                "training, --token-budget or --explain-batch-tokens for eval, or choose another "
                "--device"
            ) from error
        except KeyboardInterrupt as error:
            raise Stopped(f"interrupted: {error}" if str(error) else "interrupted") from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ivra")
def main() -> None:
    """Train a transformer's attention until it gives good explanations.

    \b
    ivra train --criteria sim,suff        built-in data, writes runs/<name>
    ivra eval --aopc                      the latest run
    ivra explain --text "not bad at all"  coloured tokens
    """
