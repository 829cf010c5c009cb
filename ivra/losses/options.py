"""The options of a class: the scalar parameters of its constructor, read and checked."""

import inspect
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ivra.errors import IvraError, brief, unknown_name

SCALARS = (float, int, bool, str, NoneType)


class Option(NamedTuple):
    """A parameter that a user may set.

    ``kind`` is its annotation and ``choices`` what a ``Literal`` allows (else empty).
    """

    name: str
    kind: Any
    default: object
    choices: tuple[object, ...]

    @property
    def values(self) -> str:
        """``margin, kl``: the default, then the other choices."""
        others = [choice for choice in self.choices if choice != self.default]
        return ", ".join(str(value) for value in (self.default, *others))


def _is_scalar(kind: object) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _is_scalar(inner[0])
    if origin in (Union, UnionType):
        return all(_is_scalar(part) for part in inner)
    return origin is Literal or kind in SCALARS


def constructor_options(kind: type, reserved: frozenset[str] = frozenset()) -> dict[str, Option]:
    """The options of a class by name, in the order of its constructor.

    They are the parameters that have a default and are annotated as ``float``, ``int``, ``bool``,
    ``str``, a ``Literal``, one of these with pydantic's constraints (``Annotated[float,
    Field(gt=0)]``) or a union of these. ``reserved`` names are left out.
    """
    constructor = kind.__init__  # type: ignore[misc]
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except (NameError, TypeError):  # annotations that exist for a type checker alone
        return {}
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        given = parameter.default is not parameter.empty
        if named and given and name not in reserved and _is_scalar(hints.get(name)):
            literal = get_origin(hints[name]) is Literal
            choices = get_args(hints[name]) if literal else ()
            found[name] = Option(name, hints[name], parameter.default, choices)
    return found


def accepts(kind: type, name: str) -> bool:
    """Whether the constructor of a class has a parameter called ``name``."""
    return name in inspect.signature(kind.__init__).parameters  # type: ignore[misc]


def checked_values(
    owner: str,
    options: Mapping[str, Option],
    values: Mapping[str, object],
    noun: str = "criterion",
) -> dict[str, Any]:
    """``values`` as the types that the options of ``owner``, a ``noun``, ask for.

    Text is converted.

    Raises:
        IvraError: an option that ``owner`` does not have, or a value that does not fit.
    """
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if not options:
            raise IvraError(f"{noun} '{owner}' has no options, got '{name}': leave it out")
        if name not in options:
            raise unknown_name(f"option of {owner}", str(name), list(options))
        option = options[name]
        if option.choices:
            named = {str(choice): choice for choice in option.choices}
            text = value if isinstance(value, str) else brief(value)
            if text not in named:
                raise unknown_name(f"value of {owner}.{name}", text, list(named))
            checked[name] = named[text]
            continue
        try:
            checked[name] = TypeAdapter(option.kind).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise IvraError(
                f"{owner}.{name} is {brief(value)}: {reason} (default: {option.default})"
            ) from error
        if isinstance(checked[name], float) and not math.isfinite(checked[name]):
            raise IvraError(
                f"{owner}.{name} is {brief(value)}: expected a finite number (default: "
                f"{option.default})"
            )
    return checked
