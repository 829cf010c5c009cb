"""Ctrl-C from the command line: one line, exit code 130."""

import json
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import Result

from ivra.training import Run, load_run

Call = Callable[..., Result]


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def stopped(result: Result, line: str) -> None:
    assert result.exit_code == 130
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.splitlines() == [line]


@pytest.mark.parametrize("name", ["accuracy", "CriteriaStage"])
def test_a_training_that_is_usable(
    call: Call, flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(import_module("ivra.training.train"), name, interrupt)
    result = call(*flags, "--output", tmp_path, "--name", "cut")
    cut = tmp_path / "cut"
    stopped(
        result,
        f"ivra: interrupted: the best weights so far are kept in {cut}; go on with 'ivra train "
        f"--resume {cut}'",
    )
    assert os.readlink(tmp_path / "latest") == "cut"
    assert load_run(tmp_path / "latest").record["interrupted"] is True
    assert "accuracy " in result.stdout
    assert ("accuracy - before the criteria, - after" in result.stdout) == (name == "accuracy")


@pytest.mark.parametrize("name", ["read_splits", "load_backbone", "save_config"])
def test_a_training_that_had_not_begun(
    call: Call, flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    where = "train" if name == "save_config" else "lesson"
    monkeypatch.setattr(import_module(f"ivra.training.{where}"), name, interrupt)
    stopped(call(*flags, "--output", tmp_path, "--name", "cut"), "ivra: interrupted")
    assert os.listdir(tmp_path) == []


def test_a_training_that_is_stopped_twice(
    call: Call, flags: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(import_module("ivra.training.train"), "save_record", interrupt)
    result = call(*flags, "--output", tmp_path, "--name", "cut")
    cut = tmp_path / "cut"
    stopped(
        result, f"ivra: interrupted: {cut} is unfinished; go on with 'ivra train --resume {cut}'"
    )
    assert os.listdir(tmp_path) == ["cut"]
    assert load_run(cut).record == {}


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("eval", "ivra.cli.evaluate.load_run"),
        ("eval", "ivra.evaluation.evaluate.predict"),
        ("explain", "ivra.api.predicted"),
        ("explain", "ivra.cli.explain.write_json_atomic"),
    ],
)
def test_figures_that_are_not_written(
    call: Call,
    trained: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    place: str,
) -> None:
    target = tmp_path / "out.json"
    target.write_text(json.dumps("earlier"))
    module, _, name = place.rpartition(".")
    monkeypatch.setattr(import_module(module), name, interrupt)
    rows = ("--accuracy", "--rows", "4") if command == "eval" else ("--text", "good")
    stopped(call(command, trained.path, *rows, "--json", target), "ivra: interrupted")
    assert json.loads(target.read_text()) == "earlier"
    assert os.listdir(tmp_path) == ["out.json"]
