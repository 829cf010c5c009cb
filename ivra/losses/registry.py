"""Which criteria there are: ours in one table, others by entry point; and how they are named."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ivra.errors import IvraError, unknown_name
from ivra.losses.comprehensiveness import Comprehensiveness
from ivra.losses.consistency import Consistency
from ivra.losses.criterion import Criterion
from ivra.losses.fidelity import Fidelity
from ivra.losses.options import checked_values
from ivra.losses.plausibility import Plausibility
from ivra.losses.simulatability import Simulatability
from ivra.losses.sufficiency import Sufficiency
from ivra.plugins import Slot, brought

SLOT = Slot("ivra.criteria", "criterion", Criterion, "ivra.Criterion")  # type: ignore[type-abstract]
BUILT_IN: tuple[type[Criterion], ...] = (
    Simulatability,
    Comprehensiveness,
    Sufficiency,
    Consistency,
    Plausibility,
    Fidelity,
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


def known_criteria() -> dict[str, Known]:
    """All criteria by name.

    Raises:
        IvraError: a plugin that cannot be used, or a name that two packages claim (both named).
    """
    known = {}
    for name, found in brought(SLOT, BUILT_IN).items():
        if found.kind.better not in ("higher", "lower"):
            raise IvraError(
                f"criterion '{name}' of {found.package} has better {found.kind.better!r}: "
                "expected 'higher' or 'lower'"
            )
        known[name] = Known(name, found.kind, found.package)
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
