"""A run that is taken up again ends as it would have, to the bit, or says in one line why not."""

import copy
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ivra.errors import IvraError, NotFiniteError
from ivra.losses import Criterion, Terms, View
from ivra.storage import locked
from ivra.training import Hooks, Run, TrainConfig, load_run, read_config, resume, train
from ivra.training.checkpoint import Checkpoints
from ivra.training.log import read_log
from ivra.training.run import CONFIG

Configure = Callable[..., TrainConfig]


class BrokenError(Exception):
    """Stands for whatever ends a process."""


class Break(Hooks):
    """Something breaks after a step."""

    def __init__(self, stage: str, step: int, error: BaseException | None = None) -> None:
        self._at = (stage, step)
        self._error = error or BrokenError()

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        if (stage, step) == self._at:
            raise self._error


def parts(run: Run) -> dict[str, bytes]:
    """All files but the record."""
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for path in sorted(run.path.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }


def facts(run: Run) -> dict[str, object]:
    record = json.loads((run.path / "run.json").read_text())
    return {key: value for key, value in record.items() if key not in ("seconds", "resumed")}


def broken(config: TrainConfig, output: Path, *at: Any, **options: Any) -> Path:
    """A run that broke there."""
    with pytest.raises(BrokenError):
        train(config, output=output, name="broken", hooks=(Break(*at),), **options)
    return output / "broken"


def same(one: Run, other: Run) -> None:
    assert parts(one) == parts(other)
    assert facts(one) == facts(other)


PLACES = {
    "module": [("finetune", 6), ("criteria", 4)],
    "perturbed": [("criteria", 4)],
    "both": [("criteria", 4)],
    "guided": [("criteria", 4)],
    "backbone": [("criteria", 1)],
}
KINDS: dict[str, dict[str, object]] = {
    "module": {"criteria": "suff,cons", "schedule": "step", "finetune_removal": 0.5},
    "perturbed": {
        "criteria": "comp",
        "topk_gradient": "perturbed",
        "options": {"comp": {"bins_mode": "cycle"}},
        "average": 1.0,
    },
    "both": {
        "criteria": "sim,suff",
        "train": "both",
        "student_count": 2,
        "options": {"sim": {"practice": 1}},
    },
    "guided": {
        "criteria": "sim",
        "whiten": True,
        "student_count": 2,
        "student_life": 6,
        "options": {"sim": {"form": "guided", "practice": 1}},
        "student_pool": 12,
        "student_schedule": "linear",
    },
    "backbone": {"criteria": "suff", "train": "backbone", "finetune": "never"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_is_the_run_without_a_break(
    config: Configure, tmp_path: Path, kind: str
) -> None:
    given = config(max_steps=5, finetune_epochs=1.5, **KINDS[kind])
    whole = train(given, output=tmp_path, name="whole")
    for stage, step in PLACES[kind]:
        folder = broken(given, tmp_path, stage, step)
        assert not (folder / "run.json").exists()
        found = resume(folder)
        same(found, whole)
        (place,) = found.record["resumed"]  # type: ignore[misc]
        assert place["stage"] == stage
        assert place["step"] < step
        assert os.readlink(tmp_path / "latest") == "broken"
        shutil.rmtree(folder)


def test_a_run_can_be_resumed_again_and_again(config: Configure, tmp_path: Path) -> None:
    given = config(max_steps=4, validations=4)
    whole = train(given, output=tmp_path, name="whole")
    folder = broken(given, tmp_path, "finetune", 2)
    with pytest.raises(BrokenError):
        resume(folder, hooks=(Break("criteria", 2),))
    found = resume(folder)
    same(found, whole)
    assert found.record["resumed"] == [
        {"stage": "finetune", "step": 0},
        {"stage": "criteria", "step": 1},
    ]


def test_a_run_that_was_interrupted_is_resumed(config: Configure, tmp_path: Path) -> None:
    given = config(max_steps=5)
    whole = train(given, output=tmp_path, name="whole")
    for stage, step in (("finetune", 2), ("criteria", 4)):
        hook = Break(stage, step, KeyboardInterrupt())
        cut = train(given, output=tmp_path, name="cut", hooks=(hook,))
        assert cut.record["interrupted"] is True
        assert load_run(cut.path).record["interrupted"] is True
        found = resume(cut.path)
        same(found, whole)
        assert found.record["interrupted"] is False
        shutil.rmtree(cut.path)


def test_a_run_without_a_checkpoint_begins_anew(config: Configure, tmp_path: Path) -> None:
    given = config()
    whole = train(given, output=tmp_path, name="whole")
    folder = broken(given, tmp_path, "criteria", 2, checkpoint_every="never")
    assert not (folder / "checkpoint").exists()
    found = resume(folder)
    same(found, whole)
    assert found.record["resumed"] == []


@pytest.mark.parametrize(("every", "expected"), [(None, 0), ("3", 3), ("1h", 0), (2, 4)])
def test_how_often_a_checkpoint_is_saved(
    config: Configure, tmp_path: Path, every: str | int | None, expected: int
) -> None:
    given = config(max_steps=6, validations=1)
    folder = broken(given, tmp_path, "criteria", 5, checkpoint_every=every)
    state = json.loads((folder / "checkpoint" / "state.json").read_text())
    assert (state["stage"], state["step"]) == ("criteria", expected)


def test_a_run_that_was_moved_is_resumed(
    config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config()
    whole = train(given, output=tmp_path, name="whole")
    folder = broken(given, tmp_path / "here", "criteria", 2)
    (tmp_path / "there").mkdir()
    shutil.move(folder, tmp_path / "there" / "renamed")
    monkeypatch.chdir(tmp_path / "there")
    found = resume("renamed")
    same(found, whole)
    assert os.readlink(tmp_path / "there" / "latest") == "renamed"
    assert os.listdir(tmp_path / "here") == []


class Moved(Hooks):
    """Someone moves the run's folder away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_begin(self, stage: str, steps: int) -> None:
        if stage == "criteria":
            self._folder.rename(self._folder.with_name("elsewhere"))


def test_a_folder_that_is_moved_while_it_trains_is_one_line(
    config: Configure, tmp_path: Path
) -> None:
    folder = tmp_path / "moved"
    with pytest.raises(IvraError) as caught:
        train(config(), output=tmp_path, name="moved", hooks=(Moved(folder),))
    assert str(caught.value) == f"cannot write {folder / 'log.jsonl'}: No such file or directory"
    assert not folder.exists()
    whole = train(config(), output=tmp_path, name="whole")
    same(resume(tmp_path / "elsewhere"), whole)


class Wavering(Criterion):
    """Has parameters, an optimiser, generators and a counter of its own."""

    name = "wavering"

    def __init__(self) -> None:
        super().__init__()
        self.aim = nn.Parameter(torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.steps = 0
        self.generator = torch.Generator().manual_seed(1)
        self.optimizer = torch.optim.SGD([self.aim], 0.1, momentum=0.9)

    def inner_step(self, view: View) -> None:
        self.steps += 1
        self.optimizer.zero_grad()
        (self.aim - view.saliency.detach().amax(-1).mean()).square().backward()
        self.optimizer.step()

    def forward(self, view: View) -> Terms:
        self.seen += len(view.batch)
        drawn = torch.rand((), generator=self.generator) + torch.rand(()).item()
        shaken = drawn * random.random() * np.random.rand() * (1 + self.steps) / self.seen
        return Terms(wavering=(view.saliency - self.aim.detach() * shaken).square().sum(-1))

    def get_extra_state(self) -> dict[str, Any]:
        momentum = [entry["momentum_buffer"] for entry in self.optimizer.state.values()]
        state = self.generator.get_state()
        return {"steps": self.steps, "generator": state, "momentum": (momentum, "a tuple")}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.generator.set_state(state["generator"])
        for value in state["momentum"][0]:
            self.optimizer.state[self.aim]["momentum_buffer"] = value


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Criterion]], None]:
    """Make a class known as a plugin."""

    def add(kind: type[Criterion]) -> None:
        monkeypatch.setattr(
            "ivra.losses.registry.BUILT_IN",
            (*__import__("ivra.losses.registry", fromlist=["_"]).BUILT_IN, kind),
        )

    return add


def test_a_plugin_with_a_state_of_its_own_is_resumed(
    config: Configure, tmp_path: Path, plugin: Callable[[type[Criterion]], None]
) -> None:
    plugin(Wavering)
    given = config(criteria="wavering", max_steps=5, finetune="never")
    whole = train(given, output=tmp_path, name="whole")
    same(resume(broken(given, tmp_path, "criteria", 4)), whole)


class Hoarding(Criterion):
    """Has a state that no checkpoint can hold."""

    name = "hoarding"

    def forward(self, view: View) -> Terms:
        return Terms(hoarding=view.saliency.square().sum(-1))

    def get_extra_state(self) -> dict[str, Any]:
        return {"rows": {1, 2}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        pass


def test_a_state_that_cannot_be_kept_is_named_before_the_first_step(
    config: Configure, tmp_path: Path, plugin: Callable[[type[Criterion]], None]
) -> None:
    plugin(Hoarding)
    given = config(criteria="hoarding", finetune="never")
    with pytest.raises(IvraError) as caught:
        train(given, output=tmp_path, name="cut")
    assert str(caught.value) == (
        "cannot save a checkpoint: state.own.0.carried.hoarding._extra_state.rows is set: expected "
        "dicts with text keys, lists, tensors, numbers, text, booleans and None"
    )
    train(given, output=tmp_path, name="other", checkpoint_every="never")


class Poisoned(Criterion):
    """Returns a NaN or an infinity at some steps."""

    name = "poisoned"
    at: dict[int, float] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, view: View) -> Terms:
        value = view.saliency.square().sum(-1)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls in self.at:
                value = torch.where(torch.arange(len(value)) == 1, self.at[self.calls], value)
        return Terms(poisoned=value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_term_that_is_not_finite_names_criterion_step_and_rows(
    config: Configure,
    tmp_path: Path,
    plugin: Callable[[type[Criterion]], None],
    monkeypatch: pytest.MonkeyPatch,
    value: float,
) -> None:
    plugin(Poisoned)
    monkeypatch.setattr(Poisoned, "at", {3: value})
    given = config(criteria="poisoned", max_steps=4, validations=4, finetune="never")
    with pytest.raises(NotFiniteError) as caught:
        train(given, output=tmp_path, name="cut")
    said = str(caught.value)
    assert said.startswith("criteria step 3, batch of rows ")
    ids = said.removeprefix("criteria step 3, batch of rows ").partition(": ")[0].split(", ")
    assert len(ids) == 8
    assert said.endswith(
        f": criterion 'poisoned' returned a term 'poisoned' that is not finite, {value} in row "
        f"{ids[1]}; lower the learning rate, or leave such steps out with skip_nonfinite: what was "
        "saved before is kept"
    )
    state = json.loads((tmp_path / "cut" / "checkpoint" / "state.json").read_text())
    assert (state["stage"], state["step"]) == ("criteria", 2), "the last good one"
    assert load_run(tmp_path / "cut").record == {}
    monkeypatch.setattr(Poisoned, "at", {1: value})  # the criterion counts from the start again
    found = resume(tmp_path / "cut", given={"skip_nonfinite": True})
    assert found.record["criteria"]["skipped"] == 1  # type: ignore[index]
    assert found.config.skip_nonfinite is True
    assert read_config(found.path / CONFIG)["skip_nonfinite"] is True


def test_steps_that_are_not_finite_are_left_out_and_counted(
    config: Configure,
    tmp_path: Path,
    plugin: Callable[[type[Criterion]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plugin(Poisoned)
    monkeypatch.setattr(Poisoned, "at", {1: float("nan"), 3: float("inf"), 4: float("-inf")})
    given = config(criteria="poisoned", max_steps=4, finetune="never", skip_nonfinite=True)
    run = train(given, output=tmp_path, name="skipping")
    record = run.record["criteria"]
    assert isinstance(record, dict)
    assert (record["steps"], record["skipped"]) == (4, 3)
    lines = [line for line in read_log(run.path / "log.jsonl") if line["split"] == "train"]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert ["skipped" in line for line in lines] == [True, False, True, True]
    assert lines[0]["skipped"].startswith("criteria step 1, batch of rows ")
    assert all(bool(p.isfinite().all()) for p in run.module.parameters())


def refused(folder: Path, **options: Any) -> str:
    """What is said, in one line; the run stays as it was."""
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(IvraError) as caught:
        resume(folder, **options)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def stopped(config: Configure, tmp_path: Path) -> Path:
    """A run that broke in stage 2."""
    return broken(config(finetune="never"), tmp_path, "criteria", 2)


def test_what_cannot_be_resumed(stopped: Path, tmp_path: Path) -> None:
    assert refused(stopped, given={"lr": 0.5}) == (
        f"cannot resume {stopped} with lr 0.5: it was begun with 0.02; leave the option out, or "
        "train anew under another name"
    )
    assert refused(stopped, checkpoint_every="often").startswith("checkpoint_every is 'often'")
    assert refused(stopped, given={"lrr": 1}).startswith("unknown key in command line 'lrr'.")
    assert refused(stopped, device="nowhere").startswith("cannot use the device 'nowhere'")
    with pytest.raises(IvraError, match=r"no run at .*none: check the path"):
        resume(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == (
        f"{tmp_path / 'empty'} has no config.yaml: expected a run folder of 'ivra train'"
    )
    same_options = {"lr": 0.02, "criteria": "suff"}
    run = resume(stopped, given=same_options)
    assert refused(stopped) == f"{stopped} is finished: nothing to resume"
    assert load_run(run.path).record["interrupted"] is False


def test_two_processes_do_not_work_on_one_run(stopped: Path) -> None:
    with locked(stopped), pytest.raises(IvraError) as caught:
        resume(stopped)
    assert str(caught.value) == (
        f"another process is at work in {stopped}: wait until it is done, or end it"
    )
    resume(stopped)


class Seen(Hooks):
    """Asks for the lock of the run that trains."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""

    def on_begin(self, stage: str, steps: int) -> None:
        with pytest.raises(IvraError) as caught, locked(self.folder):
            pass
        self.said = str(caught.value)


def test_a_run_that_trains_is_locked(config: Configure, tmp_path: Path) -> None:
    seen = Seen(tmp_path / "held")
    train(config(finetune="never"), output=tmp_path, name="held", hooks=(seen,))
    assert seen.said.startswith("another process is at work in ")


def test_a_configuration_that_was_changed(stopped: Path) -> None:
    text = (stopped / CONFIG).read_text()
    (stopped / CONFIG).write_text(text.replace("lr: 0.02", "lr: 0.03"))
    assert refused(stopped) == (
        f"{stopped / CONFIG} was changed: lr is 0.03, but 0.02 in the checkpoint; put it back"
    )


def test_data_that_was_changed(config: Configure, tmp_path: Path, folder: str) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    given = config(finetune="never", data=str(data))
    stopped = broken(given, tmp_path, "criteria", 2)
    lines = (data / "train.jsonl").read_text().splitlines(keepends=True)
    (data / "train.jsonl").write_text("".join(lines[1:]))
    assert refused(stopped) == (
        f"{data} has other rows than when {stopped} was begun: put the data back, or train anew "
        "under another name"
    )


def test_a_log_that_was_cut(stopped: Path) -> None:
    path = stopped / "log.jsonl"
    size = json.loads((stopped / "checkpoint" / "state.json").read_text())["log"]
    path.write_bytes(path.read_bytes()[: size - 1])
    assert refused(stopped) == (
        f"{path} has {size - 1} bytes, but had {size} when the checkpoint was saved: copy the run "
        "again, or train anew under another name"
    )


def test_weights_that_were_changed(config: Configure, tmp_path: Path) -> None:
    stopped = broken(config(), tmp_path, "criteria", 2)
    path = stopped / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert f"{path} is not the file that was saved" in refused(stopped)


@pytest.mark.parametrize(
    "harm",
    [
        lambda state: state.pop("step"),
        lambda state: state.update(step=10**9),
        lambda state: state.update(step="3"),
        lambda state: state.update(parameters=state["parameters"][:-1]),
        lambda state: state.update(parameters=[p.double() for p in state["parameters"]]),
        lambda state: state.update(parameters=[p[None] for p in state["parameters"]]),
        lambda state: state.update(optimizer=[[0, {"exp_avg": torch.zeros(99)}]]),
        lambda state: state.update(optimizer=[[10**6, {"exp_avg": torch.zeros(9)}]]),
        lambda state: state.update(batches={"epoch": 0, "given": 10**12}),
        lambda state: state.update(batches={"epoch": "x", "given": 0}),
        lambda state: state["own"][0].update(carried={}),
        lambda state: state["own"][0]["random"].update(torch=torch.zeros(3, dtype=torch.uint8)),
        lambda state: state["own"][0]["random"].update(python=[3, [1, 2], None]),
        lambda state: state["own"][0]["random"].update(numpy=["other", [1], 1, 0, 0.0]),
        lambda state: state["keeper"].update(copies=[torch.zeros(1)]),
    ],
)
def test_a_checkpoint_of_another_run_does_not_fit(
    config: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[dict], object],
) -> None:
    """Whole, with the right checksums, but not of such a run."""
    save = Checkpoints.save

    def harmed(self: Checkpoints, stage: str, step: int, state: dict) -> None:
        other = copy.deepcopy(state)
        harm(other)
        save(self, stage, step, other)

    with monkeypatch.context() as context:
        context.setattr(Checkpoints, "save", harmed)
        stopped = broken(config(finetune="never"), tmp_path, "criteria", 1)
    with pytest.raises(IvraError) as caught:
        resume(stopped)
    assert str(caught.value).startswith("the checkpoint does not fit the run (")
    assert str(caught.value).endswith("was changed; train anew under another name")
    assert "\n" not in str(caught.value)
