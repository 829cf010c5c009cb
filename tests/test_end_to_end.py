"""From data to a run and back: training, loading, repeating, interrupting."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ivra
from ivra.api import explain
from ivra.backbones import load_backbone
from ivra.data import Batch, Row, read_rows
from ivra.errors import IvraError
from ivra.evaluation import EvalConfig, evaluate
from ivra.losses import TOPK_GRADIENTS
from ivra.training import Hooks, Run, TrainConfig, Validation, load_plain, load_run, train

torch.set_num_threads(1)

CRITERIA = ("sim", "suff", "comp", "cons")
TEXTS = ("not good .", "a very dull film , and never funny at all .")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few of the built-in rows, as files."""
    made = tmp_path_factory.mktemp("reviews")
    for part, count in (("train", 96), ("dev", 32), ("test", 32)):
        rows = [{"text": r.texts[0], "label": r.label} for r in read_rows("builtin", part)[:count]]
        lines = [json.dumps(row) + "\n" for row in rows]
        (made / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(made)


@pytest.fixture(scope="session")
def make_config(folder: str) -> Callable[..., TrainConfig]:
    """A configuration of a second or so."""

    def make(**values: object) -> TrainConfig:
        given: dict[str, object] = {
            "criteria": "suff",
            "data": folder,
            "max_length": 48,
            "batch_size": 16,
            "finetune_epochs": 1.0,
            "max_steps": 4,
            "validations": 1,
            "validation_rows": 32,
            "student_rows": 32,
            "student_life": 2,
        }
        return TrainConfig(**(given | values))

    return make


@pytest.fixture(scope="session")
def trained(
    make_config: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run that the tests below read and leave as it is."""
    return train(make_config(), output=tmp_path_factory.mktemp("runs"), name="first")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder`` as it stands on disk."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def log_of(run: Run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]


def batch_of(run: Run) -> Batch:
    rows = [Row(text, (text,)) for text in TEXTS]
    return next(run.encoder.batches(run.encoder.items(rows, labelled=False)))


@torch.no_grad()
def seen(run: Run) -> tuple[Tensor, Tensor]:
    """Logits and saliency of two rows."""
    batch = batch_of(run)
    encoding = run.backbone.eval().encode(batch, run.module)
    return encoding.logits, run.module(encoding.readings, batch.explainable, encoding.predictions)


class Interrupt(Hooks):
    """Ctrl-C after a step of a stage."""

    def __init__(self, stage: str, step: int) -> None:
        self._at = (stage, step)

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        if (stage, step) == self._at:
            raise KeyboardInterrupt


class Fail(Hooks):
    """Something breaks while the criteria are validated."""

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        if stage == "criteria" and step:
            raise IvraError("broken on purpose")


class Watch(Hooks):
    """Every stage that began and ended."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_begin(self, stage: str, steps: int) -> None:
        self.calls.append(("begin", stage, steps))

    def on_end(self, stage: str, interrupted: bool) -> None:
        self.calls.append(("end", stage, interrupted))


def test_a_run_holds_all_its_files(trained: Run) -> None:
    names = {str(p.relative_to(trained.path)) for p in trained.path.rglob("*") if p.is_file()}
    assert {
        "config.yaml",
        "run.json",
        "log.jsonl",
        "module.json",
        "module.safetensors",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
    } <= names
    assert not [name for name in names if Path(name).name.startswith(".")]
    record = json.loads((trained.path / "run.json").read_text())
    assert record == json.loads(json.dumps(trained.record))
    assert record["interrupted"] is False
    assert record["data"]["train"]["rows"] == 96
    assert record["finetune"]["steps"] == 6
    assert record["criteria"]["steps"] == 4
    assert 0 <= record["accuracy"]["after"] <= 1


def test_a_loaded_run_has_equal_logits_and_saliency(trained: Run) -> None:
    loaded = load_run(trained.path)
    for left, right in zip(seen(trained), seen(loaded), strict=True):
        assert torch.equal(left, right)
    assert loaded.config == trained.config
    assert loaded.record == json.loads(json.dumps(trained.record))
    assert loaded.backbone.labels == trained.backbone.labels == ("negative", "positive")
    assert explain(loaded, list(TEXTS)) == explain(trained, list(TEXTS))


def test_the_model_of_a_run_is_read_by_transformers_alone(trained: Run) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(trained.path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.path / "model")
    inputs = tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    torch.testing.assert_close(logits, seen(trained)[0], atol=1e-4, rtol=1e-4)


def test_the_module_is_trained_and_the_backbone_is_not(trained: Run) -> None:
    assert any(p.abs().max() > 0 for p in trained.module.parameters())
    entries = [entry for entry in log_of(trained) if entry["stage"] == "criteria"]
    assert [(e["step"], e["split"]) for e in entries] == [
        (0, "valid"),
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (4, "train"),
        (4, "valid"),
    ]
    accuracy = trained.record["accuracy"]
    assert isinstance(accuracy, dict)
    assert accuracy["before"] == accuracy["after"]


def test_latest_points_at_the_run(
    trained: Run, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    latest = trained.path.parent / "latest"
    assert latest.is_symlink()
    assert os.readlink(latest) == "first"
    assert load_run(latest).name == "first"
    for name in ("one", "two"):
        train(make_config(max_steps=1), output=tmp_path, name=name)
        assert (tmp_path / "latest").resolve() == (tmp_path / name).resolve()


def test_the_same_seed_gives_equal_weights_and_log(
    trained: Run, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    torch.manual_seed(99)  # whatever came before
    again = train(make_config(), output=tmp_path, name="again")
    for left, right in ((again.backbone, trained.backbone), (again.module, trained.module)):
        for name, value in left.state_dict().items():
            assert torch.equal(value, right.state_dict()[name]), name
    assert log_of(again) == log_of(trained)
    files, others = contents(again.path), contents(trained.path)
    for name in ("config.yaml", "module.json", "module.safetensors", "model/model.safetensors"):
        assert files[name] == others[name]


def test_the_same_seed_repeats_with_a_student_too(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(criteria="sim", max_steps=2)
    runs = [train(config, output=tmp_path, name=name) for name in ("a", "b")]
    assert log_of(runs[0]) == log_of(runs[1])
    assert torch.equal(seen(runs[0])[1], seen(runs[1])[1])


def test_another_seed_gives_other_weights(
    trained: Run, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    other = train(make_config(seed=1, max_steps=1), output=tmp_path)
    assert other.name.startswith("suff-tiny-electra-seed1-")
    assert not torch.equal(seen(other)[0], seen(trained)[0])


@pytest.mark.parametrize(
    ("criteria", "model"),
    [
        *((criterion, "tiny-electra") for criterion in CRITERIA),
        ("suff", "tiny-gpt2"),
        ("suff", "tiny-llama"),
        ("sim,suff:0.5", "tiny-electra"),
    ],
)
def test_each_criterion_trains_and_loads(
    make_config: Callable[..., TrainConfig], tmp_path: Path, criteria: str, model: str
) -> None:
    run = train(make_config(criteria=criteria, model=model, max_steps=2), output=tmp_path)
    names = {part.partition(":")[0] for part in criteria.split(",")}
    logged = [e for e in log_of(run) if e["stage"] == "criteria"]
    assert set(logged[0]["terms"]) == names
    for entry in logged:
        assert all(abs(value) < float("inf") for value in entry["terms"].values())
    assert run.record["criteria"]["steps"] == 2  # type: ignore[index]
    loaded = load_run(tmp_path / "latest")
    for left, right in zip(seen(run), seen(loaded), strict=True):
        assert torch.equal(left, right)
    assert seen(run)[1].sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize(
    ("criterion", "options"),
    [
        *(("comp", {"form": form}) for form in ("difference", "probability", "absolute", "kl")),
        ("suff", {"form": "kl", "bins_mode": "mean"}),
        ("suff", {"bins_mode": "cycle"}),
        ("cons", {"form": "ratio", "distance": "l1", "divergence": "js"}),
        ("cons", {"divergence": "fenchel-young"}),
        ("cons", {"form": "clustering"}),
    ],
)
def test_other_forms_of_criteria_train(
    make_config: Callable[..., TrainConfig],
    trained: Run,
    tmp_path: Path,
    criterion: str,
    options: dict[str, str],
) -> None:
    config = make_config(
        criteria=criterion,
        options={criterion: options},
        model=str(trained.path / "model"),
        finetune="never",
        saliency_norm="sparsemax",
        max_steps=2,
        lr=0.1,
    )
    run = train(config, output=tmp_path, name="run")
    losses = [entry["terms"][criterion] for entry in log_of(run) if entry["split"] == "train"]
    assert len(losses) == 2
    assert any(p.abs().max() > 0 for p in run.module.parameters())


@pytest.mark.parametrize("gradient", TOPK_GRADIENTS)
def test_every_gradient_through_the_cut_trains(
    make_config: Callable[..., TrainConfig], trained: Run, tmp_path: Path, gradient: str
) -> None:
    config = make_config(
        criteria="comp,suff",
        topk_gradient=gradient,
        options={"comp": {"samples": 2}, "suff": {"temperature": 0.5, "samples": 4}},
        model=str(trained.path / "model"),
        finetune="never",
        max_steps=2,
    )
    runs = [train(config, output=tmp_path, name=name) for name in ("one", "two")]
    assert any(p.abs().max() > 0 for p in runs[0].module.parameters())
    assert torch.equal(seen(runs[0])[1], seen(runs[1])[1]), "the draws are seeded"


@pytest.mark.parametrize("form", ["kl", "mae", "bce"])
def test_plausibility_trains_the_saliency_onto_the_rationales(tmp_path: Path, form: str) -> None:
    """The built-in data marks its evidence."""
    config = TrainConfig(
        criteria="plaus",
        options={"plaus": {"form": form}},
        finetune="never",
        max_steps=40,
        lr=0.05,
        validations=2,
        validation_rows=64,
    )
    run = train(config, output=tmp_path, name="run")
    entries = [e for e in log_of(run) if e["stage"] == "criteria"]
    aucs = [e["terms"]["plaus"] for e in entries if e["split"] == "valid"]
    losses = [e["terms"]["plaus"] for e in entries if e["split"] == "train"]
    assert max(aucs) > aucs[0] + 0.1
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("trains", ["both", "backbone"])
def test_a_backbone_that_trains_is_saved_as_it_was_kept(
    trained: Run, make_config: Callable[..., TrainConfig], tmp_path: Path, trains: str
) -> None:
    config = make_config(train=trains, max_steps=2, backbone_lr=1e-3)
    watch = Watch()
    run = train(config, output=tmp_path, name=trains, hooks=(watch,))
    loaded = load_run(run.path)
    for left, right in zip(seen(run), seen(loaded), strict=True):
        assert torch.equal(left, right)
    validation = [e for e in log_of(run) if e["stage"] == "criteria" and e["split"] == "valid"]
    assert all(set(entry["terms"]) == {"suff", "accuracy"} for entry in validation)
    step = next(e for e in log_of(run) if e["stage"] == "criteria" and e["split"] == "train")
    assert "task" in step["terms"]
    plain = load_plain(loaded)
    assert plain is not None
    assert not torch.equal(plain.encode(batch_of(run)).logits, seen(run)[0])
    for name, value in trained.backbone.state_dict().items():  # the same seed, before stage 2
        assert torch.equal(value, plain.state_dict()[name]), name
    figures = evaluate(loaded, EvalConfig(metrics=("accuracy",)))["accuracy"]
    before = evaluate(trained, EvalConfig(metrics=("accuracy",)))["accuracy"]
    assert figures["plain"]["accuracy"] == before["accuracy"]
    assert figures["plain"]["macro_f1"] == before["macro_f1"]
    assert figures["plain"]["difference"] == pytest.approx(figures["accuracy"] - before["accuracy"])
    shutil.rmtree(run.path / "plain")  # a run of an earlier version
    figures = evaluate(loaded, EvalConfig(metrics=("accuracy",)))["accuracy"]
    assert figures["plain"] is None
    assert "train it again" in figures["plain_note"]
    assert watch.calls == [
        ("begin", "finetune", 6),
        ("end", "finetune", False),
        ("begin", "criteria", 2),
        ("end", "criteria", False),
    ]


def test_a_run_can_start_from_the_model_of_another(
    trained: Run, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config(model=str(trained.path / "model"), max_steps=1)
    run = train(config, output=tmp_path)
    assert run.record["finetune"] is None
    assert torch.equal(seen(run)[0], seen(trained)[0])


def test_pairs_of_texts_are_trained_and_explained(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    texts = [row.texts[0] for row in read_rows("builtin", "train")[:41]]
    data = tmp_path / "pairs.jsonl"
    lines = [
        json.dumps(
            {"premise": a, "hypothesis": b, "label": "no" if i % 2 else "yes"},
        )
        for i, (a, b) in enumerate(itertools.pairwise(texts))
    ]
    data.write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = make_config(data=str(data), max_steps=1, max_length=96)
    run = train(config, output=tmp_path / "runs")
    assert run.backbone.labels == ("no", "yes")
    assert run.record["data"]["valid"]["rows"] == 4  # type: ignore[index]
    (row,) = explain(load_run(run.path), [(TEXTS[0], TEXTS[1])])
    assert row.texts == (TEXTS[0], TEXTS[1])
    assert {segment for segment in row.segment if segment >= 0} == {0, 1}
    assert sum(row.saliency) == pytest.approx(1.0, abs=1e-5)
    assert row.prediction in ("no", "yes")


@pytest.mark.parametrize(("stage", "step"), [("finetune", 2), ("criteria", 1), ("criteria", 3)])
def test_an_interrupted_run_is_usable_and_says_so(
    make_config: Callable[..., TrainConfig], tmp_path: Path, stage: str, step: int
) -> None:
    config = make_config(validations=4)
    run = train(config, output=tmp_path, name="cut", hooks=(Interrupt(stage, step),))
    assert run.record["interrupted"] is True
    loaded = load_run(tmp_path / "latest")
    assert loaded.record["interrupted"] is True
    for left, right in zip(seen(run), seen(loaded), strict=True):
        assert torch.equal(left, right)
    outcome = run.record[stage]
    assert isinstance(outcome, dict)
    assert outcome["steps"] == step
    if stage == "finetune":
        assert run.record["criteria"] is None


def test_a_failure_leaves_earlier_runs_and_latest_untouched(
    trained: Run, make_config: Callable[..., TrainConfig]
) -> None:
    runs = trained.path.parent
    before = contents(trained.path)
    with pytest.raises(IvraError, match="broken on purpose"):
        train(make_config(max_steps=1), output=runs, name="broken", hooks=(Fail(),))
    assert contents(trained.path) == before
    assert os.readlink(runs / "latest") == "first"
    broken = load_run(runs / "broken")  # the best weights until then
    assert broken.record == {}
    with pytest.raises(IvraError, match="exists already: choose another name"):
        train(make_config(max_steps=1), output=runs, name="first")
    assert contents(trained.path) == before


def test_bad_data_makes_no_folder(make_config: Callable[..., TrainConfig], tmp_path: Path) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"text": "good", "label": "a"}\n{"text": "bad", "label": "a"}\n')
    with pytest.raises(IvraError, match="at least two classes"):
        train(make_config(data=str(data)), output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_files_of_a_run_follow_the_umask(trained: Run) -> None:
    modes = {
        str(path.relative_to(trained.path)): oct(path.stat().st_mode & 0o777)
        for path in trained.path.rglob("*")
        if path.is_file()
    }
    assert set(modes.values()) == {modes["config.yaml"]}


def test_the_package_itself_exports_what_the_commands_call() -> None:
    for name in ("train", "load", "explain", "evaluate"):
        assert callable(getattr(ivra, name))
    assert load_backbone("tiny-electra").labels == ("negative", "positive")
