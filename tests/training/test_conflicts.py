"""Which criteria fought: in the log, in the record, in the last lines of ``ivra train``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from ivra.cli.main import main
from ivra.training import CriteriaStage, Hooks, TrainConfig, Validation, resume, train
from ivra.training.combining import COMBINERS, PREFERENCE, Combined, Mixer
from ivra.training.conflicts import Conflict, conflict_line, conflicts, mean_gradients

Make = Callable[..., TrainConfig]


def steps_of(path: Path) -> list[dict]:
    lines = (path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [e for e in entries if e["stage"] == "criteria" and e["split"] == "train"]


@pytest.mark.parametrize("combine", [name for name in COMBINERS if name != PREFERENCE])
def test_every_combiner_trains(
    combine: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CriteriaStage, "validate", lambda self: Validation(None, {}))
    bound = {"suff": 0.05} if combine == "constrained" else {}
    config = make(combine=combine, bound=bound, criteria="comp:2,suff,cons")
    run = train(config, output=tmp_path, name="run")
    entries = steps_of(run.path)
    assert len(entries) == 3
    for entry in entries:
        assert list(entry["gradients"]["norms"]) == ["comp", "suff", "cons"]
        assert list(entry["gradients"]["cosines"]) == ["comp,suff", "comp,cons", "suff,cons"]
        assert all(norm > 0 for norm in entry["gradients"]["norms"].values())
    moved = [p for p in run.module.parameters() if bool((p != p.flatten()[0]).any())]
    assert moved, "the steps move the module"
    found = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["conflicts"]
    cosines = [entry["gradients"]["cosines"]["comp,suff"] for entry in entries]
    own = next(one for one in found if one["criteria"] == ["comp", "suff"])
    assert own["steps"] == 3
    assert own["cosine"] == pytest.approx(sum(cosines) / 3)
    assert own["against"] == pytest.approx(sum(c < 0 for c in cosines) / 3)


@pytest.mark.parametrize("combine", ["uncertainty", "constrained", "upgrad", "pcgrad"])
@pytest.mark.parametrize("place", ["module", "all"])
def test_a_backbone_that_trains_is_mixed_too(
    combine: str, place: str, make: Make, tmp_path: Path
) -> None:
    bound = {"suff": 0.05} if combine == "constrained" else {}
    config = make(combine=combine, bound=bound, train="both", combine_on=place, max_steps=1)
    (entry,) = steps_of(train(config, output=tmp_path, name="run").path)
    names = ["comp", "suff"] if place == "module" else ["task", "comp", "suff"]
    assert list(entry["gradients"]["norms"]) == names


def test_where_the_backbone_alone_trains_its_gradients_are_compared(
    make: Make, tmp_path: Path
) -> None:
    config = make(combine="upgrad", train="backbone", max_steps=1)
    (entry,) = steps_of(train(config, output=tmp_path, name="run").path)
    assert list(entry["gradients"]["norms"]) == ["task", "comp", "suff"]


def old_sum(self: Mixer, losses: dict[str, torch.Tensor]) -> Combined:
    """As stage 2 added its criteria up before it could do anything else."""
    return Combined(torch.stack([self.weights[n] * v for n, v in losses.items()]).sum(), None)


@pytest.mark.parametrize("values", [{}, {"criteria": "suff:0.3"}, {"train": "both"}])
def test_a_weighted_sum_trains_to_the_same_bits_as_ever(
    values: dict[str, str], make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = train(make(**values), output=tmp_path, name="new")
    monkeypatch.setattr(Mixer, "forward", old_sum)
    old = train(make(**values), output=tmp_path, name="old")
    before = dict(old.module.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in new.module.named_parameters())
    weights = dict(old.backbone.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in new.backbone.named_parameters())


def test_one_criterion_alone_is_a_sum_and_has_no_gradients_in_its_log(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(make(criteria="suff"), output=tmp_path, name="plain")
    monkeypatch.setattr("ivra.training.combining.gradient_rows", None)  # no further cost
    other = train(make(criteria="suff", combine="upgrad"), output=tmp_path, name="other")
    pairs = zip(plain.module.parameters(), other.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any("gradients" in entry for entry in steps_of(other.path))
    assert other.record["conflicts"] == []


def test_the_weights_of_uncertainty_are_trained_with_the_module(make: Make, tmp_path: Path) -> None:
    seen = []
    kept = CriteriaStage.run

    def run(self: CriteriaStage, *saving: object) -> object:
        outcome = kept(self, *saving)
        seen.append(self.mixer)
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "run", run)
        train(make(combine="uncertainty"), output=tmp_path, name="run")
    (spread,) = seen[0].parameters()
    assert spread.shape == (2,)
    assert bool((spread != 0).all())


class Break(Hooks):
    """An error before the third step."""

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        if stage == "criteria" and step == 2:
            raise RuntimeError("the power went off")


@pytest.mark.parametrize("combine", ["uncertainty", "constrained", "preference", "upgrad"])
def test_a_run_that_is_resumed_mixes_on_as_if_nothing_had_been(
    combine: str, make: Make, tmp_path: Path
) -> None:
    bound = {"suff": 0.05} if combine == "constrained" else {}
    config = make(combine=combine, bound=bound, max_steps=4, final_weights={"comp": 0.2})
    whole = train(config, output=tmp_path, name="whole", checkpoint_every=1)
    with pytest.raises(RuntimeError, match="the power went off"):
        train(config, output=tmp_path, name="cut", checkpoint_every=1, hooks=(Break(),))
    cut = resume(tmp_path / "cut")
    before = dict(whole.module.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in cut.module.named_parameters())
    assert steps_of(cut.path) == steps_of(whole.path)
    assert cut.record["conflicts"] == whole.record["conflicts"]


def test_pairs_over_a_run_by_hand() -> None:
    steps = [{"a,b": -0.5, "a,c": 0.2}, {"a,b": 0.1, "a,c": None}, {"a,b": -0.2, "a,c": None}]
    found = conflicts(steps)
    assert found[0] == Conflict(("a", "b"), pytest.approx(-0.2), 3, pytest.approx(2 / 3))
    assert found[1] == Conflict(("a", "c"), 0.2, 1, 0.0)
    assert conflicts([{"a,b": None}]) == []


def test_the_line_names_those_that_fought_the_worst_first() -> None:
    fought = [Conflict(("comp", "cons"), -0.314, 60, 0.9), Conflict(("a", "b"), -0.1, 59, 0.5)]
    assert conflict_line([*fought, Conflict(("a", "c"), 0.5, 60, 0.0)]) == (
        "comp and cons fought: mean cosine -0.31 over 60 steps; a and b fought: mean cosine -0.10 "
        "over 59 steps"
    )
    assert conflict_line([Conflict(("comp", "suff"), 0.12, 10, 0.0)]) == (
        "no criteria fought: least mean cosine 0.12 (comp and suff) over 10 steps"
    )
    assert conflict_line([]) is None


def test_batches_of_one_step_are_averaged() -> None:
    one = {"norms": {"a": 1.0, "b": 2.0}, "cosines": {"a,b": -0.5}}
    two = {"norms": {"a": 3.0, "b": 0.0}, "cosines": {"a,b": None}}
    assert mean_gradients([one, two]) == {  # type: ignore[list-item]
        "norms": {"a": 2.0, "b": 1.0},
        "cosines": {"a,b": -0.5},
    }


def test_train_says_who_fought(make: Make, folder: str, tmp_path: Path) -> None:
    quick = ["--max-length=32", "--batch-size=8", "--finetune-epochs=0.5", "--max-steps=2"]
    common = ["train", f"--data={folder}", f"--output={tmp_path}", "--validations=1", *quick]
    result = CliRunner().invoke(
        main,
        [*common, "--criteria=comp,suff", "--combine=constrained", "--bound=suff=0.05",
         "--final-weights=comp=0.5", "--name=two"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    entries = steps_of(tmp_path / "two")
    mean = sum(entry["gradients"]["cosines"]["comp,suff"] for entry in entries) / 2
    if mean < 0:
        expected = f"comp and suff fought: mean cosine {mean:.2f} over 2 steps"
    else:
        expected = f"no criteria fought: least mean cosine {mean:.2f} (comp and suff) over 2 steps"
    assert expected in result.stdout.splitlines()
    alone = CliRunner().invoke(main, [*common, "--criteria=suff", "--name=one"])
    assert " fought: " not in alone.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--combine=sums"], "unknown combiner 'sums'. Did you mean 'sum'?"),
        (["--bound=suff"], "'suff': expected criterion=number, as in suff=0.05"),
        (["--combine=constrained", "--bound=suff=x"], "bound.suff is 'x': input should be a valid"),
        (["--combine=constrained", "--bound=suff=-1"], "bound.suff is '-1': input should be great"),
        (["--bound=suff=1", "--bound=suff=2"], "'suff' stands twice in 'suff=1,suff=2'"),
    ],
)
def test_bad_flags_are_one_line(flags: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["train", f"--output={tmp_path}/runs", *flags])
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
