"""A sweep: every non-empty subset of some criteria, mixed in several ways (IvRA figure 5, table 5).

It is a :class:`~ivra.studies.spec.Study`: its ``criteria`` are the subsets and its ``methods`` the
combiners. One criterion alone is trained under the first combiner only, as all are the same there.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ivra.errors import IvraError, unknown_name
from ivra.losses import parse_criteria
from ivra.studies.columns import OF_CRITERION
from ivra.studies.matrix import ALONE
from ivra.studies.presets import Preset, study_at
from ivra.studies.spec import Study, Values, merged
from ivra.training.combining import COMBINERS, PREFERENCE

CRITERIA = "sim,comp,suff,cons"
COMBINE = ("sum", "upgrad")
METHOD = "ivra-value"
WARM = "warm"
_SETS: dict[str, tuple[str, ...]] = {"cpu": ("sst2", "esnli"), "paper": ("imdb", "esnli", "squad")}
_SIZES: dict[str, Values] = {
    "tiny": {
        "training": {"finetune_epochs": 1, "max_steps": 2, "validation_rows": 16},
        "evaluation": {"student_rows": 16, "student_epochs": 1},
    },
    "cpu": {
        "model_seed": None,
        "training": {
            "finetune_epochs": 1,
            "finetune_lr": None,
            "batching": "shuffled",
            "max_steps": 40,
            "batch_size": 8,
            "max_length": 48,
            "validations": 2,
            "validation_rows": 48,
            "student_count": 1,
            "student_rows": 300,
        },
        "evaluation": {"rows": 64, "students": 1, "student_rows": 300, "resamples": 0},
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


def _way(text: str) -> Values:
    """``upgrad``, or ``upgrad:warm`` from the runs of its criteria alone."""
    combine, colon, start = text.partition(":")
    if colon and start != WARM:
        raise unknown_name("start of a combiner", start, [WARM])
    if combine not in COMBINERS:
        raise unknown_name("combiner", combine, list(COMBINERS))
    return {"combine": combine, **({"init_module": [ALONE]} if colon else {})}


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
        methods: combiners (``upgrad:warm`` starts from the runs of its criteria alone), or ways
            of mixing by name: ``{"long": {"combine": "upgrad", "max_steps": 200}}``. One run of
            ``preference`` serves all subsets.
        scale: of :data:`~ivra.studies.presets.SCALES`.
        changes: keys of the study, which win.
        data_folder: where its data sets stand; needed unless the scale is tiny.
        base: the method whose training each way of mixing changes.

    Raises:
        IvraError: an unknown criterion or combiner, no folder of data, or no model to take.
    """
    if not isinstance(methods, Mapping):
        methods = {name: _way(name) for name in methods}
    if not methods:
        raise IvraError("a sweep without a way of mixing: expected combiners, as in sum,upgrad")
    first = next(iter(methods))
    if methods[first].get("combine") == PREFERENCE or "init_module" in methods[first]:
        raise IvraError(
            f"the first way of mixing also trains for each criterion alone, which {first} cannot: "
            f"expected another before it, as in sum,{first}"
        )
    every = subsets(criteria)
    slides = {n: own for n, own in methods.items() if own.get("combine") == PREFERENCE}
    methods = {**methods, **{n: {"criteria": criteria, **own} for n, own in slides.items()}}
    mixed = tuple(text for text in every if "," in text)
    columns = [OF_CRITERION[name] for name, _ in _known(criteria)]
    values: Values = {
        "title": "Mixed criteria",
        "criteria": every,
        "methods": {name: {"base": base, **own} for name, own in methods.items()},
        "only": {name: mixed for name in list(methods)[1:] if name not in slides},
        "columns": (*columns, "accuracy"),
        "explainers": (),
        "evaluation": {"untaught": False},
    }
    sets: Mapping[str, Values] = {name: {} for name in _SETS.get(scale, ())}
    preset = Preset("", values, sets)
    return study_at(
        "sweep", preset, scale, merged(_SIZES.get(scale, {}), changes or {}), data_folder
    )
