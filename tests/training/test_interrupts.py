"""Ctrl-C at any moment leaves a usable run that says so, or nothing at all."""

import json
import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from ivra.api import explain
from ivra.backbones import Backbone
from ivra.errors import IvraError
from ivra.training import (
    Hooks,
    Run,
    ScaffoldedStudent,
    TrainConfig,
    Validation,
    load_run,
    resume,
    train,
)

train_module = import_module("ivra.training.train")
lesson_module = import_module("ivra.training.lesson")
run_module = import_module("ivra.training.run")
State = dict[str, torch.Tensor]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs in which ``latest`` points at an earlier one."""
    (tmp_path / "runs" / "earlier").mkdir(parents=True)
    (tmp_path / "runs" / "latest").symlink_to("earlier")
    return tmp_path / "runs"


def interrupt_at(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, calls: set[int]
) -> list[int]:
    """Ctrl-C in the calls of ``owner.name`` with these numbers (from 1); the calls so far."""
    real: Callable[..., object] = getattr(owner, name)
    seen: list[int] = []

    def called(*arguments: object, **named: object) -> object:
        seen.append(len(seen) + 1)
        if len(seen) in calls:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(owner, name, called)
    return seen


def usable(runs: Path, run: Run) -> dict[str, object]:
    """Check that the run on disk is the one in memory, interrupted and the latest; its record."""
    assert os.readlink(runs / "latest") == run.name
    assert sorted(os.listdir(runs)) == ["cut", "earlier", "latest"]
    assert not list(run.path.rglob(".*"))
    loaded = load_run(runs / "latest")
    assert loaded.record == json.loads(json.dumps(run.record))
    assert loaded.record["interrupted"] is True
    assert explain(loaded, ["not good ."]) == explain(run, ["not good ."])
    return loaded.record


def nothing_left(runs: Path) -> None:
    assert sorted(os.listdir(runs)) == ["earlier", "latest"]
    assert os.readlink(runs / "latest") == "earlier"


class At(Hooks):
    """Ctrl-C in one of the calls of a hook."""

    def __init__(self, call: str, stage: str) -> None:
        self._at = (call, stage)

    def _called(self, call: str, stage: str) -> None:
        if (call, stage) == self._at:
            raise KeyboardInterrupt

    def on_begin(self, stage: str, steps: int) -> None:
        self._called("begin", stage)

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        self._called("validation", stage)

    def on_end(self, stage: str, interrupted: bool) -> None:
        self._called("end", stage)


@pytest.mark.parametrize(
    "name",
    ["read_splits", "labels_of", "load_backbone", "Encoder.items", "save_config", "_new_module"],
)
def test_before_anything_is_learnt_nothing_is_left(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    owner: object = train_module if name == "save_config" else lesson_module
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    interrupt_at(monkeypatch, owner, last, {1})
    with pytest.raises(KeyboardInterrupt):
        train(config(), output=runs, name="cut")
    nothing_left(runs)


@pytest.mark.parametrize("stage", ["finetune", "criteria"])
@pytest.mark.parametrize("call", ["begin", "validation", "end"])
def test_at_the_ends_of_a_stage(
    config: Callable[..., TrainConfig], runs: Path, stage: str, call: str
) -> None:
    run = train(config(), output=runs, name="cut", hooks=(At(call, stage),))
    record = usable(runs, run)
    assert record["finetune"] is not None
    assert (record["criteria"] is None) == (stage == "finetune")
    accuracy = record["accuracy"]
    assert isinstance(accuracy, dict)
    assert all(0 <= accuracy[when] <= 1 for when in ("before", "after"))


@pytest.mark.parametrize("call", [1, 2])
def test_while_accuracy_is_computed(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    interrupt_at(monkeypatch, train_module, "accuracy", {call})
    record = usable(runs, train(config(max_steps=1, train="both"), output=runs, name="cut"))
    accuracy = record["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["after"] is None
    assert (accuracy["before"] is None) == (call == 1)
    assert (record["criteria"] is None) == (call == 1)


def test_while_criteria_are_built(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, train_module, "CriteriaStage", {1})
    record = usable(runs, train(config(), output=runs, name="cut"))
    assert record["criteria"] == {"steps": 0, "best_step": 0, "best": None, "skipped": 0}


def test_while_the_student_practises(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, ScaffoldedStudent, "_study_gradient", {2})
    given = config(criteria="sim", finetune="never")
    record = usable(runs, train(given, output=runs, name="cut"))
    criteria = record["criteria"]
    assert isinstance(criteria, dict)
    assert criteria["steps"] == 0


@pytest.mark.parametrize(
    "owner",
    [
        pytest.param(os, marks=pytest.mark.slow, id="fsync"),
        pytest.param(run_module, id="save_file"),
    ],
)
def test_while_files_are_written(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch, owner: object
) -> None:
    """One Ctrl-C in each of the writes in turn, of the configuration, weights and record."""
    given = config(finetune="never", train="both", max_steps=1, validations=1)
    name = "fsync" if owner is os else "save_file"
    for call in range(1, 100):
        with monkeypatch.context() as context:
            seen = interrupt_at(context, owner, name, {call})
            try:
                run = train(given, output=runs, name="cut")
            except KeyboardInterrupt:
                assert (name, call) == ("fsync", 1)  # the configuration
                nothing_left(runs)
                continue
        if len(seen) < call:
            assert run.record["interrupted"] is False
            break
        usable(runs, run)
        shutil.rmtree(run.path)
        (runs / "latest").unlink()
    assert call > 3


def test_a_second_interrupt_while_writing_gives_up_and_keeps_what_was_saved(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, train_module, "save_record", {1, 2})
    with pytest.raises(
        KeyboardInterrupt, match=r"cut is unfinished; go on with 'ivra train --resume .*cut'"
    ):
        train(config(), output=runs, name="cut")
    assert os.readlink(runs / "latest") == "earlier"
    assert load_run(runs / "cut").record == {}


def test_a_second_interrupt_before_the_first_weights_leaves_what_can_be_resumed(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 has been saved; without it nothing is left."""
    with monkeypatch.context() as context:
        interrupt_at(context, run_module, "save_file", {1, 2})
        with pytest.raises(KeyboardInterrupt):
            train(config(), output=runs, name="cut")
    assert sorted(os.listdir(runs / "cut")) == ["checkpoint", "config.yaml", "log.jsonl"]
    assert resume(runs / "cut").record["interrupted"] is False
    shutil.rmtree(runs / "cut")
    (runs / "latest").unlink()
    (runs / "latest").symlink_to("earlier")
    interrupt_at(monkeypatch, run_module, "save_file", {1, 2})
    with pytest.raises(KeyboardInterrupt):
        train(config(finetune="never"), output=runs, name="cut")
    nothing_left(runs)


class Fail(Hooks):
    """Something breaks after the last validation that is the best so far."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def on_end(self, stage: str, interrupted: bool) -> None:
        if stage == self._stage:
            raise IvraError("broken on purpose")


def test_a_failure_before_anything_is_saved_leaves_nothing(
    config: Callable[..., TrainConfig], runs: Path
) -> None:
    with pytest.raises(IvraError, match="broken on purpose"):
        train(
            config(),
            output=runs,
            name="cut",
            hooks=(Fail("finetune"),),
            checkpoint_every="never",
        )
    nothing_left(runs)
    with pytest.raises(IvraError, match="broken on purpose"):
        train(config(), output=runs, name="cut", hooks=(Fail("finetune"),))
    assert sorted(os.listdir(runs / "cut")) == ["checkpoint", "config.yaml", "log.jsonl"]


@pytest.mark.parametrize("trains", ["module", "both", "backbone"])
def test_module_and_model_of_a_killed_run_are_of_one_moment(
    config: Callable[..., TrainConfig], runs: Path, monkeypatch: pytest.MonkeyPatch, trains: str
) -> None:
    """Whatever was the best so far is on the disk, as a pair."""
    real, pairs = train_module.save_weights, []

    def saved(
        path: Path, module: torch.nn.Module, backbone: Backbone | None = None, *folders: object
    ) -> None:
        real(path, module, backbone, *folders)
        pairs.append((copied(module), None if backbone is None else copied(backbone)))

    monkeypatch.setattr(train_module, "save_weights", saved)
    monkeypatch.setattr("ivra.training.keeping._better", lambda score, best: True)
    given = config(train=trains, backbone_lr=1e-2, max_steps=3, validations=3)
    with pytest.raises(IvraError, match="broken on purpose"):
        train(given, output=runs, name="killed", hooks=(Fail("criteria"),))
    module, model = pairs[-1]
    assert len(pairs) == 1 + 4  # before stage 2, and its validations
    loaded = load_run(runs / "killed")
    same(loaded.module, module)
    if trains == "module":
        model = pairs[0][1]
    else:
        assert model is not None
        assert not equal(model, pairs[0][1])  # or nothing would be tested
    same(loaded.backbone, model)


def copied(module: torch.nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(left: State, right: State) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


def same(module: torch.nn.Module, state: State | None) -> None:
    assert state is not None
    assert equal(copied(module), state)
