"""Classes that other packages bring by an entry point, beside ours."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from ivra.errors import IvraError
from ivra.version import __version__

Base = TypeVar("Base")
OURS = f"ivra {__version__}"
"""The package of what ivra itself brings."""


@dataclass(frozen=True)
class Brought(Generic[Base]):
    """A class by name, and the package (with version) that brings it."""

    name: str
    kind: type[Base]
    package: str


@dataclass(frozen=True)
class Slot(Generic[Base]):
    """Where packages plug in.

    ``group`` is that of the entry points, ``noun`` what one class of it is called in messages,
    ``base`` what it has to be a subclass of and ``public`` where users find that.
    """

    group: str
    noun: str
    base: type[Base]
    public: str


def one_line(text: str) -> str:
    """``text`` with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def brought(slot: Slot[Base], ours: Iterable[type[Base]]) -> dict[str, Brought[Base]]:
    """Ours and every package's, by name.

    Raises:
        IvraError: a plugin that cannot be imported, is no subclass of the base, lacks a method or
            has another ``name`` than its entry point; or a name that two packages claim.
    """
    found = {name_of(kind): Brought(name_of(kind), kind, OURS) for kind in ours}
    for entry in sorted(entry_points(group=slot.group), key=lambda e: e.name):
        new = _load(slot, entry)
        if new.name in found:
            raise IvraError(
                f"{slot.noun} '{new.name}' is claimed by {found[new.name].package} and by "
                f"{new.package}: rename or uninstall one of them"
            )
        found[new.name] = new
    return found


def name_of(kind: type) -> str:
    """The class attribute ``name``; empty where there is none."""
    return str(getattr(kind, "name", ""))


def _load(slot: Slot[Base], entry: EntryPoint) -> Brought[Base]:
    package = "unknown package"
    if entry.dist is not None:
        package = f"{entry.dist.name} {entry.dist.version}"
    where = f"{slot.noun} '{entry.name}' of {package}"
    try:
        found = entry.load()
    except Exception as error:  # a plugin may fail in any way it likes
        reason = f"{type(error).__name__}: {one_line(str(error))}"
        raise IvraError(f"{where} cannot be imported ({reason}): mend or uninstall it") from error
    if not (inspect.isclass(found) and issubclass(found, slot.base)):
        raise IvraError(f"{where} is {one_line(repr(found))}: expected a subclass of {slot.public}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))  # type: ignore[attr-defined]
        raise IvraError(f"{where} lacks {missing}: implement it in {found.__qualname__}")
    name = getattr(found, "name", None)
    if name != entry.name:
        raise IvraError(
            f"{where} has name {name!r}: expected the class attribute 'name' to equal its entry "
            "point"
        )
    return Brought(entry.name, found, package)
