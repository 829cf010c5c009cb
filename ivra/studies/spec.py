"""What a study is: models, data, explainers, methods, criteria and seeds; checked whole."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from ivra.errors import IvraError, brief, unknown_name
from ivra.evaluation import EvalConfig, aopc_settings
from ivra.explainers import static_explainer
from ivra.losses import parse_criteria
from ivra.studies.columns import columns_of
from ivra.studies.methods import METHODS, SHARED
from ivra.training import TrainConfig, make_config, read_config

Where = Callable[[tuple[str, ...]], str]
"""Where the value under these keys was read: ``study.yaml:7``."""
Values = dict[str, Any]

SET_BY_STUDY = ("model", "data", "seed", "criteria")
OF_CRITERIA = ("options", "combine", "bound", "final_weights")
"""What can be checked only with the criteria of a cell, of which each takes its own."""
EVAL_SET_BY_STUDY = ("data", "explainers", "seed")
_EVALUATION = TypeAdapter(EvalConfig)


class TestSet(BaseModel):
    """Rows to judge on other than a data set's own."""

    __test__ = False
    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(None, description="a set, file or folder (default: the name)")
    split: str = Field("test", description="the part of it")


class DataSet(BaseModel):
    """Rows to train on, and how they are trained and judged on."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(None, description="what --data takes (default: the name)")
    training: Values = Field({}, description="changes of training for this set alone")
    evaluation: Values = Field({}, description="changes of evaluation for this set alone")
    test: dict[str, TestSet] = Field({}, description="other sets to judge on, not its own")

    @field_validator("test", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return _mapping(value)


class Study(BaseModel):
    """Everything that decides what a study runs, and a key of its YAML file each.

    Every combination of model, data set and seed is fine-tuned once; the static explainers are
    judged on it, and every method is trained on it for every criterion, and judged.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    name: str = Field("study", description="the study's folder under studies")
    title: str = Field("", description="what stands above its tables")
    models: Annotated[dict[str, str], Field(min_length=1)] = Field(
        {"tiny-electra": "tiny-electra"}, description="models, or name: model"
    )
    data: Annotated[dict[str, DataSet], Field(min_length=1)] = Field(
        {"builtin": DataSet()}, description="data sets, or name: what is special about it"
    )
    explainers: tuple[str, ...] = Field(
        ("attention", "attention-last", "input-x-gradient"),
        description="explainers without training",
    )
    methods: dict[str, Values] = Field(
        {"ivra-value": {}}, description="ways of training, or name: changes of training"
    )
    criteria: tuple[str, ...] = Field(("comp", "suff"), description="what each method trains for")
    only: dict[str, tuple[str, ...]] = Field(
        {}, description="of some methods, the criteria that they alone are trained for"
    )
    columns: tuple[str, ...] = Field(
        (), description="figures of the tables (default: those of the criteria)"
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (
        Field((0, 1, 2), description="each is a fine-tuned model and everything after")
    )
    model_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = Field(
        None, description="seed of one fine-tuned model for all seeds (default: one a seed)"
    )
    training: Values = Field({}, description="changes of ivra.TrainConfig")
    evaluation: Values = Field({}, description="changes of ivra.EvalConfig")
    plot: Literal["points", "lines", "thresholds", "examples"] = Field(
        "points", description="what the picture shows"
    )
    clock_rows: int = Field(0, ge=0, description="rows to time every explainer on")

    @field_validator("models", mode="before")
    @classmethod
    def _models_named(cls, value: object) -> object:
        if isinstance(value, str | list | tuple):
            return {Path(str(name)).name: name for name in _listed(value)}
        return value

    @field_validator("data", "methods", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return _mapping(value)

    @field_validator("explainers", "criteria", "columns", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        return _listed(value)

    @field_validator("seeds", mode="before")
    @classmethod
    def _numbers(cls, value: object) -> object:
        return [value] if isinstance(value, int) else _listed(value)

    @field_validator("only", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        return {k: _listed(v) for k, v in value.items()} if isinstance(value, Mapping) else value

    @property
    def first(self) -> str:
        """The first method."""
        return next(iter(self.methods), "")

    def criteria_of(self, method: str) -> tuple[str, ...]:
        """What ``method`` is trained for."""
        return self.only.get(method, self.criteria)

    @field_validator("name")
    @classmethod
    def _one_folder(cls, name: str) -> str:
        if slug(name) != name or name in ("", ".", ".."):
            raise IvraError(
                f"a study cannot be called '{name}': expected letters, digits and any of . - _ + ="
            )
        return name


def slug(name: str) -> str:
    """``name`` as it can stand in a file's name."""
    return re.sub(r"[^\w.+=-]+", "-", name, flags=re.ASCII)


def make_study(values: Mapping[str, object], where: Where = lambda keys: "study") -> Study:
    """A checked study.

    Raises:
        IvraError: in one line, the first value that does not fit, what was expected, and
            ``where`` it stood.
    """
    for key in values:
        if key not in Study.model_fields:
            raise unknown_name(f"key in {where((str(key),))}", str(key), list(Study.model_fields))
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise _one_line(error, where, ()) from error
    for name in study.explainers:
        static_explainer(name)
    for name, changes in study.methods.items():
        _check_method(name, changes, where)
    _check_only(study, where)
    for set_name, data in study.data.items():
        _check_training(data.training, where, ("data", set_name, "training"))
        check_evaluation(data.evaluation, where, ("data", set_name, "evaluation"))
    _check_training(study.training, where, ("training",))
    check_evaluation(study.evaluation, where, ("evaluation",))
    names = [known.name for text in study.criteria for known in parse_criteria(text)]
    if "options" in study.training:
        _check_options(names, study.training["options"], where(("training", "options")))
    columns_of(study.columns, study.criteria)
    return study


def read_study(path: str | Path, changes: Mapping[str, object] | None = None) -> Study:
    """The study of a YAML file, with ``changes`` of its keys, which win.

    ``training`` and ``evaluation`` are merged key by key.

    Raises:
        IvraError: no such file, or a value that does not fit; with its line where it is known.
    """
    values = read_config(path)
    values.setdefault("name", slug(Path(path).stem))
    lines = _key_lines(Path(path).read_text(encoding="utf-8"))

    def where(keys: tuple[str, ...]) -> str:
        while keys and keys not in lines:
            keys = keys[:-1]
        return f"{path}:{lines[keys]}" if keys else str(path)

    return make_study(merged(values, changes or {}), where)


def merged(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """``values`` with ``changes``; ``training``, ``evaluation`` and ``only`` key by key."""
    result = {**values, **changes}
    for key in ("training", "evaluation", "only"):
        before, after = values.get(key), changes.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            result[key] = {**before, **after}
    return result


def method_changes(study: Study, name: str) -> Values:
    """What the method ``name`` changes: of the table, if it stands there, and of the study."""
    own = study.methods[name]
    base = str(own.get("base", name))
    return {**METHODS.get(base, {}), **{k: v for k, v in own.items() if k != "base"}}


def eval_config(values: Mapping[str, Any], where: str = "evaluation") -> EvalConfig:
    """A checked evaluation; ``aopc`` may be a mapping of its choices, with ``preset``.

    Raises:
        IvraError: in one line, the first value that does not fit and ``where`` it stood.
    """
    known = {field.name: field.type for field in fields(EvalConfig)}
    given = dict(values)
    for key, value in given.items():
        if key not in known:
            raise unknown_name(f"key in {where}", str(key), list(known))
        if isinstance(value, bool) and known[key] is not bool:
            raise IvraError(f"{where}: {key} is {value}: expected no true or false")
    if isinstance(given.get("aopc"), Mapping):
        choices = dict(given["aopc"])
        preset = choices.pop("preset", None)
        if isinstance(choices.get("bins"), list):
            choices["bins"] = tuple(choices["bins"])
        given["aopc"] = aopc_settings(preset, choices)
    try:
        return _EVALUATION.validate_python(given)
    except ValidationError as error:
        raise _one_line(error, lambda keys: where, ()) from error


def check_evaluation(values: Values, where: Where, keys: tuple[str, ...]) -> None:
    """Raise :class:`IvraError` for the first change of an evaluation that does not fit."""
    for key, value in values.items():
        place = where((*keys, str(key)))
        _not_set_by_study(key, EVAL_SET_BY_STUDY, place)
        eval_config({key: value}, place)


def _check_training(values: Values, where: Where, keys: tuple[str, ...]) -> None:
    for key, value in values.items():
        place = where((*keys, str(key)))
        _not_set_by_study(key, SET_BY_STUDY, place)
        if key in OF_CRITERIA:
            continue
        make_config({key: value}, place)


def _check_method(name: str, changes: Values, where: Where) -> None:
    place = where(("methods", name))
    base = str(changes.get("base", name))
    if base not in METHODS and ("base" in changes or not changes):
        raise unknown_name(f"method in {place}", base, list(METHODS))
    for key, value in changes.items():
        if key in SHARED:
            raise IvraError(
                f"{place}: the method '{name}' changes '{key}', which makes the model that all "
                "methods explain: put it under training, for all of them"
            )
        if key not in ("base", *OF_CRITERIA):
            make_config({key: value}, where(("methods", name, str(key))))
    own = {k: v for k, v in changes.items() if k not in ("base", *OF_CRITERIA)}
    make_config({**METHODS.get(base, {}), **own})


def _check_only(study: Study, where: Where) -> None:
    for name, criteria in study.only.items():
        place = where(("only", name))
        if name not in study.methods:
            raise unknown_name(f"method in {place}", name, list(study.methods))
        for text in criteria:
            if text not in study.criteria:
                raise unknown_name(f"criteria in {place}", text, list(study.criteria))


def _check_options(criteria: list[str], options: object, place: str) -> None:
    """All options of criteria at once: a cell takes those of its own criteria."""
    make_config({"criteria": ",".join(dict.fromkeys(criteria)), "options": options}, place)


def _not_set_by_study(key: str, taken: tuple[str, ...], place: str) -> None:
    if key in taken:
        own = {"model": "models", "seed": "seeds"}.get(key, key)
        raise IvraError(f"{place}: '{key}' is set by the study: use its own key '{own}'")


def _one_line(error: ValidationError, where: Where, keys: tuple[str, ...]) -> IvraError:
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, IvraError):
        return cause
    path = (*keys, *(str(part) for part in first["loc"]))
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        model = TestSet if "test" in path[:-1] else DataSet
        return unknown_name(f"key in {where(path)}", path[-1], list(model.model_fields))
    return IvraError(f"{where(path)}: {name} is {brief(first['input'])}: {first['msg'].lower()}")


def _listed(value: object) -> Any:
    """A list of the parts between commas, or what else it is as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _mapping(value: object) -> object:
    """A mapping from names, or as it is with nothing (``sst2:``) as an empty mapping."""
    if isinstance(value, str | list | tuple):
        return {str(name): {} for name in _listed(value)}
    if isinstance(value, Mapping):
        return {key: {} if inner is None else inner for key, inner in value.items()}
    return value


def _key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line of every key of a YAML text."""
    found: dict[tuple[str, ...], int] = {}

    def walk(node: yaml.Node | None, keys: tuple[str, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                path = (*keys, str(key.value))
                found[path] = key.start_mark.line + 1
                walk(value, path)

    walk(yaml.compose(text, yaml.SafeLoader), ())
    return found


def training_config(study: Study, values: Mapping[str, Any]) -> TrainConfig:
    """A checked training configuration of the study."""
    return make_config({**values}, f"training of the study '{study.name}'")
