"""Which criteria there are: ours in one table, others by entry point; and how they are named."""

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from ivra.errors import IvraError, unknown_name
from ivra.losses.comprehensiveness import Comprehensiveness
from ivra.losses.consistency import Consistency
from ivra.losses.criterion import Criterion
from ivra.losses.options import checked_values
from ivra.losses.plausibility import Plausibility
from ivra.losses.simulatability import Simulatability
from ivra.losses.sufficiency import Sufficiency

GROUP = "ivra.criteria"
BUILT_IN: tuple[type[Criterion], ...] = (
    Simulatability,
    Comprehensiveness,
    Sufficiency,
    Consistency,
    Plausibility,
)


class Known(NamedTuple):
    """A criterion by name, and the package (with version) that brings it."""

    name: str
    criterion: type[Criterion]
    package: str


class Weighted(NamedTuple):
    """A criterion's name and its weight in the sum."""

    name: str
    weight: float


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _load(entry: EntryPoint) -> Known:
    package = "unknown package"
    if entry.dist is not None:
        package = f"{entry.dist.name} {entry.dist.version}"
    where = f"criterion '{entry.name}' of {package}"
    try:
        found = entry.load()
    except Exception as error:  # a plugin may fail in any way it likes
        reason = f"{type(error).__name__}: {_one_line(str(error))}"
        raise IvraError(f"{where} cannot be imported ({reason}): mend or uninstall it") from error
    if not (inspect.isclass(found) and issubclass(found, Criterion)):
        raise IvraError(
            f"{where} is {_one_line(repr(found))}: expected a subclass of ivra.Criterion"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise IvraError(f"{where} lacks {missing}: implement it in {found.__qualname__}")
    name = getattr(found, "name", None)
    if name != entry.name:
        raise IvraError(
            f"{where} has name {name!r}: expected the class attribute 'name' to equal its entry "
            "point"
        )
    if found.better not in ("higher", "lower"):
        raise IvraError(f"{where} has better {found.better!r}: expected 'higher' or 'lower'")
    return Known(entry.name, found, package)


def known_criteria() -> dict[str, Known]:
    """All criteria by name.

    Raises:
        IvraError: a plugin that cannot be used, or a name that two packages claim (both named).
    """
    from ivra.version import __version__

    known = {c.name: Known(c.name, c, f"ivra {__version__}") for c in BUILT_IN}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        found = _load(entry)
        if found.name in known:
            raise IvraError(
                f"criterion '{found.name}' is claimed by {known[found.name].package} and by "
                f"{found.package}: rename or uninstall one of them"
            )
        known[found.name] = found
    return known


def parse_criteria(text: str) -> list[Weighted]:
    """``"sim,suff:0.5"`` as names and weights (1 where none is given).

    Raises:
        IvraError: an unknown or repeated name, or a weight that is not a positive number.
    """
    choices = known_criteria()
    parsed: list[Weighted] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        if name not in choices:
            raise unknown_name("criterion", name, list(choices))
        if name in (known.name for known in parsed):
            raise IvraError(f"criterion '{name}' stands twice in '{text}': name each once")
        try:
            value = float(weight) if colon else 1.0
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            raise IvraError(
                f"criterion '{name}' has weight '{weight}': expected a positive number, as in "
                f"{name}:0.5"
            )
        parsed.append(Weighted(name, value))
    if not parsed:
        raise IvraError(f"no criterion named: expected some of {', '.join(sorted(choices))}")
    return parsed


def check_options(
    criteria: str, options: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, Any]]:
    """The options of each criterion that ``criteria`` names, as the types it asks for.

    Raises:
        IvraError: a criterion that is not in ``criteria``, an option that it does not have, or a
            value that does not fit; with the choices.
    """
    names = [weighted.name for weighted in parse_criteria(criteria)]
    known = known_criteria()
    checked = {}
    for name, values in options.items():
        if name not in names:
            raise unknown_name("criterion with options (not in criteria)", name, names)
        checked[name] = checked_values(name, known[name].criterion.options(), values)
    return checked
