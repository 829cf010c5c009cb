"""A sweep: every non-empty subset of some criteria, mixed in several ways (IvRA figure 5, table 5).

It is a :class:`~ivra.studies.spec.Study`: its ``criteria`` are the subsets and its ``methods`` the
combiners. One criterion alone is trained under the first combiner only, as all are the same there.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ivra.errors import IvraError
from ivra.losses import parse_criteria
from ivra.studies.columns import OF_CRITERION
from ivra.studies.presets import Preset, study_at
from ivra.studies.spec import Study, Values, merged

CRITERIA = "sim,comp,suff,cons"
COMBINE = ("sum", "upgrad")
METHOD = "ivra-value"
_SETS: dict[str, tuple[str, ...]] = {"cpu": ("sst2", "esnli"), "paper": ("imdb", "esnli", "squad")}
_SIZES: dict[str, dict[str, Values]] = {
    "tiny": {
        "training": {"finetune_epochs": 3, "max_steps": 2, "validation_rows": 16},
        "evaluation": {"student_rows": 16, "student_epochs": 1},
    },
}
"""What a sweep changes of a scale: it has many more cells than a table."""


def subsets(criteria: str) -> tuple[str, ...]:
    """Every non-empty subset of ``"sim,suff:0.5"``, the small ones first; weights stay.

    Raises:
        IvraError: an unknown criterion, or one without a figure to compare.
    """
    parts = [f"{name}:{weight:g}" if weight != 1 else name for name, weight in _known(criteria)]
    return tuple(
        ",".join(chosen)
        for size in range(1, len(parts) + 1)
        for chosen in itertools.combinations(parts, size)
    )


def _known(criteria: str) -> Sequence[tuple[str, float]]:
    found = parse_criteria(criteria)
    for name, _ in found:
        if name not in OF_CRITERION:
            raise IvraError(
                f"criterion '{name}' has no figure that its gain could be measured by: expected "
                f"some of {', '.join(OF_CRITERION)}"
            )
    return found


def sweep_study(
    criteria: str = CRITERIA,
    methods: Mapping[str, Values] | Sequence[str] = COMBINE,
    scale: str = "cpu",
    changes: Mapping[str, Any] | None = None,
    data_folder: str | Path | None = None,
    base: str = METHOD,
) -> Study:
    """The study that a sweep is.

    Args:
        criteria: whose subsets are trained, with weights where one has them.
        methods: combiners, or ways of mixing by name: ``{"warm": {"combine": "upgrad"}}``.
        scale: of :data:`~ivra.studies.presets.SCALES`.
        changes: keys of the study, which win.
        data_folder: where its data sets stand; needed unless the scale is tiny.
        base: the method whose training each way of mixing changes.

    Raises:
        IvraError: an unknown criterion or combiner, no folder of data, or no model to take.
    """
    if not isinstance(methods, Mapping):
        methods = {name: {"combine": name} for name in methods}
    if not methods:
        raise IvraError("a sweep without a way of mixing: expected combiners, as in sum,upgrad")
    every = subsets(criteria)
    mixed = tuple(text for text in every if "," in text)
    columns = [OF_CRITERION[name] for name, _ in _known(criteria)]
    values: Values = {
        "title": "Mixed criteria",
        "criteria": every,
        "methods": {name: {"base": base, **own} for name, own in methods.items()},
        "only": dict.fromkeys(list(methods)[1:], mixed),
        "columns": (*columns, "accuracy"),
        "explainers": (),
    }
    sets: Mapping[str, Values] = {name: {} for name in _SETS.get(scale, ())}
    preset = Preset("", values, sets)
    return study_at(
        "sweep", preset, scale, merged(_SIZES.get(scale, {}), changes or {}), data_folder
    )
