"""A few of the built-in rows as files, and a study of seconds that several tests look at."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ivra.data import read_rows
from ivra.studies import Study, StudyResult, make_study, run_study

QUICK: dict[str, Any] = {
    "finetune_epochs": 1,
    "max_steps": 1,
    "validations": 1,
    "max_length": 32,
}
"""What makes a cell take a second."""


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets: ``little`` and, without training rows, ``other``."""
    made = tmp_path_factory.mktemp("sets")
    for name, parts in (("little", ("train", "dev", "test")), ("other", ("test",))):
        (made / name).mkdir()
        for part in parts:
            found = read_rows("builtin", part)
            rows = [{"text": r.texts[0], "label": r.label} for r in found[:16]]
            lines = [json.dumps(row) + "\n" for row in rows]
            (made / name / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def small() -> Callable[..., Study]:
    """A study of two seeds, one method and one static explainer, with changes."""

    def made(**changes: object) -> Study:
        values: dict[str, object] = {
            "name": "small",
            "data": {"little": {"test": {"little": {}, "other": {}}}},
            "explainers": ["attention"],
            "methods": ["smat"],
            "criteria": ["comp"],
            "columns": ["comp", "accuracy", "step_seconds"],
            "seeds": [0, 1],
            "training": QUICK,
            "evaluation": {"rows": 4, "resamples": 0},
        }
        return make_study(values | changes)

    return made


@pytest.fixture(scope="session")
def finished(
    small: Callable[..., Study], sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyResult, Path]:
    """The study, run; tests leave its files as they are."""
    output = tmp_path_factory.mktemp("studies") / "small"
    return run_study(small(), output, data_folder=sets), output
