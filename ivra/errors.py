"""The one exception that means "the user can mend this"."""


class IvraError(ValueError):
    """What was expected, what came, and how to mend it, in one line.

    The command line prints the message without a traceback and exits with code 2;
    from Python it is an ordinary ``ValueError``.
    """


def unknown_name(kind: str, name: str, choices: list[str]) -> IvraError:
    """An unknown ``name`` among ``choices``: the error lists them and the nearest match."""
    from difflib import get_close_matches

    near = get_close_matches(name, choices, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return IvraError(f"unknown {kind} '{name}'.{hint} Choose from: {', '.join(sorted(choices))}.")
