"""Which explainers there are: ours in one table, others by entry point; and how they are named."""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

from ivra.errors import IvraError, unknown_name
from ivra.explainers.attention import (
    AttentionRollout,
    HeadAttention,
    LastLayerAttention,
    MeanAttention,
    PooledAttention,
)
from ivra.explainers.conductance import LayerConductance
from ivra.explainers.controls import MarkedTokens, RandomScores, TrivialScores
from ivra.explainers.deeplift import DeepLIFT
from ivra.explainers.explainer import BATCH_TOKENS, Explainer
from ivra.explainers.gradients import GradientNorm, InputXGradient, IntegratedGradients
from ivra.explainers.module import ModuleExplainer, UntrainedExplainer
from ivra.explainers.perturbation import LIME, KernelSHAP, Occlusion
from ivra.losses.options import Option, accepts, checked_values, constructor_options
from ivra.plugins import Slot, brought

SLOT = Slot("ivra.explainers", "explainer", Explainer, "ivra.Explainer")  # type: ignore[type-abstract]
STATIC: dict[str, type[Explainer]] = {
    explainer.name: explainer
    for explainer in (
        UntrainedExplainer,
        MeanAttention,
        LastLayerAttention,
        PooledAttention,
        AttentionRollout,
        HeadAttention,
        GradientNorm,
        InputXGradient,
        IntegratedGradients,
        DeepLIFT,
        LayerConductance,
        Occlusion,
        LIME,
        KernelSHAP,
        RandomScores,
    )
}
"""Explainers of ours that need no training, by name."""

CONTROLS: dict[str, type[Explainer]] = {
    explainer.name: explainer for explainer in (RandomScores, TrivialScores, MarkedTokens)
}
"""What students are taught with for comparison (beside nothing at all), by name."""

_OTHERS = (ModuleExplainer, TrivialScores, MarkedTokens)
"""Explainers of ours that cannot be named among the static ones."""


class KnownExplainer(NamedTuple):
    """A static explainer by name, and the package (with version) that brings it."""

    name: str
    explainer: type[Explainer]
    package: str


def known_explainers() -> dict[str, KnownExplainer]:
    """All static explainers by name, ours and those of other packages.

    Raises:
        IvraError: a plugin that cannot be used, or a name that two packages claim (both named).
    """
    found = brought(SLOT, (*STATIC.values(), *_OTHERS))
    own = {kind.name for kind in _OTHERS}
    known = {
        name: KnownExplainer(name, one.kind, one.package)
        for name, one in found.items()
        if name not in own
    }
    for name, explainer, package in known.values():
        _check_usable(f"explainer '{name}' of {package}", explainer)
    return known


def _check_usable(where: str, explainer: type[Explainer]) -> None:
    if explainer.name == "none":
        raise IvraError(f"{where} has the name of having no explainer: rename it")
    for parameter in list(inspect.signature(explainer.__init__).parameters.values())[1:]:
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not variadic:
            raise IvraError(
                f"{where} cannot be built without '{parameter.name}': give every parameter of "
                f"{explainer.__qualname__}'s constructor a default"
            )


def explainer_options(explainer: type[Explainer]) -> dict[str, Option]:
    """What a user may set of an explainer, by name; ``batch_tokens`` is the evaluation's."""
    return constructor_options(explainer, frozenset({"batch_tokens"}))


def _parsed(text: str, besides: Sequence[str] = ()) -> tuple[type[Explainer], dict[str, Any]]:
    """``"lime:samples=100:seed=1"`` as its class and options."""
    name, *parts = text.split(":")
    if name in STATIC:  # whatever other packages bring: theirs cannot stand in the way of ours
        explainer = STATIC[name]
    else:
        known = known_explainers()
        if name not in known:
            raise unknown_name("explainer", name, [*besides, *known])
        explainer = known[name].explainer
    values: dict[str, object] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not (option and equals and value):
            raise IvraError(
                f"explainer '{text}' has '{part}' for an option: expected name=value, as in "
                "lime:samples=100:seed=1"
            )
        if option in values:
            raise IvraError(f"option '{option}' stands twice in '{text}': set it once")
        values[option] = value
    return explainer, checked_values(name, explainer_options(explainer), values, "explainer")


def check_explainers(names: Sequence[str], besides: Sequence[str] = ()) -> None:
    """Raise :class:`IvraError` unless each of ``names`` is a static explainer, or one of
    ``besides``, and stands once.

    An unknown explainer, option or value lists the choices.
    """
    for place, text in enumerate(names):
        if text not in besides:
            _parsed(text, besides)
        if text in names[:place]:
            raise IvraError(f"explainer '{text}' stands twice: name each once")


def static_explainer(name: str, seed: int = 0, batch_tokens: int = BATCH_TOKENS) -> Explainer:
    """The explainer called ``name``, which may have options: ``lime:samples=100:seed=1``.

    ``seed`` is that of whatever it draws, unless the options say another, and ``batch_tokens``
    bounds what goes through the model at once. Its ``name`` is the whole of the name given.

    Raises:
        IvraError: an unknown name, option or value; the choices are listed.
    """
    kind, options = _parsed(name)
    explainer = _built(kind, {"seed": seed, "batch_tokens": batch_tokens} | options)
    object.__setattr__(explainer, "name", name)  # it may be a frozen dataclass
    return explainer


def control(name: str, seed: int = 0) -> Explainer:
    """The control called ``name``; ``seed`` is that of random scores.

    Raises:
        IvraError: no such name; the choices are listed.
    """
    if name not in CONTROLS:
        raise unknown_name("control", name, list(CONTROLS))
    return _built(CONTROLS[name], {"seed": seed})


def _built(kind: type[Explainer], values: dict[str, Any]) -> Explainer:
    return kind(**{name: value for name, value in values.items() if accepts(kind, name)})
