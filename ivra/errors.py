"""The one exception that means "the user can mend this"."""

from reprlib import Repr


class IvraError(ValueError):
    """What was expected, what came, and how to mend it, in one line.

    The command line prints the message without a traceback and exits with code 2;
    from Python it is an ordinary ``ValueError``.
    """


class NotFiniteError(IvraError):
    """A NaN or an infinity in training: ``what`` it is, and in which ``row`` of the batch."""

    def __init__(self, what: str, row: int | None = None) -> None:
        super().__init__(what if row is None else f"{what} in row {row}")
        self.what = what
        self.row = row


class ElsewhereError(NotFiniteError):
    """The same in another process, which knows more of it."""

    def __init__(self) -> None:
        super().__init__("something is not finite in another process")


def first_line(error: BaseException) -> str:
    """The first line of what ``error`` says that is not blank, else what kind of error it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def brief(value: object) -> str:
    """``repr(value)``, cut short: of a YAML file whose lists refer to lists it has no end."""
    short = Repr()
    short.maxlevel, short.maxlist, short.maxdict, short.maxtuple = 2, 4, 4, 4
    short.maxstring = short.maxother = short.maxlong = 80
    return short.repr(value)


def unknown_name(kind: str, name: str, choices: list[str]) -> IvraError:
    """An unknown ``name`` among ``choices``: the error lists them and the nearest match."""
    from difflib import get_close_matches

    near = get_close_matches(name, choices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return IvraError(f"unknown {kind} '{name}'.{hint} Choose from: {', '.join(sorted(choices))}.")
