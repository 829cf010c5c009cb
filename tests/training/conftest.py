"""A few rows, and a configuration that takes a fraction of a second."""

import json
from collections.abc import Callable

import pytest

from ivra.data import read_rows
from ivra.training import TrainConfig

SMALL: dict[str, object] = {
    "max_length": 32,
    "batch_size": 8,
    "finetune_epochs": 0.5,
    "validation_rows": 8,
    "student_rows": 8,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few of the built-in rows, as files."""
    made = tmp_path_factory.mktemp("reviews")
    for part, count in (("train", 32), ("dev", 8), ("test", 8)):
        rows = [{"text": r.texts[0], "label": r.label} for r in read_rows("builtin", part)[:count]]
        lines = [json.dumps(row) + "\n" for row in rows]
        (made / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(made)


@pytest.fixture
def config(folder: str) -> Callable[..., TrainConfig]:
    """A configuration of a fraction of a second."""

    def make(**values: object) -> TrainConfig:
        given: dict[str, object] = {
            **SMALL,
            "criteria": "suff",
            "data": folder,
            "max_steps": 2,
            "validations": 2,
            "student_life": 2,
        }
        return TrainConfig(**(given | values))

    return make


@pytest.fixture(scope="session")
def make(folder: str) -> Callable[..., TrainConfig]:
    """A configuration of two criteria that takes a fraction of a second."""

    def made(**values: object) -> TrainConfig:
        given: dict[str, object] = {
            **SMALL,
            "criteria": "comp,suff",
            "data": folder,
            "max_steps": 3,
            "validations": 1,
            "student_count": 1,
        }
        return TrainConfig(**(given | values))

    return made
