"""Runs of a quantised Llama with adapters: what moves, what is kept, what is in memory once."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, Lora, load_backbone
from ivra.data import Row, read_rows
from ivra.errors import IvraError
from ivra.evaluation import EvalConfig, evaluate
from ivra.losses import Plan, View
from ivra.training import (
    CriteriaStage,
    Encoder,
    Hooks,
    Run,
    ScaffoldedStudent,
    TrainConfig,
    keeping,
    load_plain,
    load_run,
    resume,
    train,
)
from ivra.training.student import Newcomers

CRITERIA = ("sim", "comp", "suff", "cons")
Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module", autouse=True)
def the_latest_is_kept() -> Iterator[None]:
    """Two steps are no better than none, and the best iteration would be the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "_better", lambda score, best: True)
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("reviews")
    for part, count in (("train", 48), ("dev", 16), ("test", 16)):
        found = [{"text": r.texts[0], "label": r.label} for r in read_rows("builtin", part)[:count]]
        lines = [json.dumps(row) + "\n" for row in found]
        (made / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return str(made)


@pytest.fixture(scope="module")
def make(rows: str, llama_folder: Callable[..., Path]) -> Make:
    """A configuration of a second: Llama in 8 bits, pad = eos, two steps of each stage."""

    def built(**values: object) -> TrainConfig:
        given: dict[str, object] = {
            "criteria": "suff",
            "model": str(llama_folder(2, False)),
            "lora": True,
            "lora_r": 4,
            "load_in_8bit": True,
            "data": rows,
            "max_length": 32,
            "batch_size": 16,
            "finetune_epochs": 0.5,
            "backbone_lr": 1e-2,
            "max_steps": 2,
            "validations": 1,
            "validation_rows": 16,
            "student_rows": 16,
            "options": {"sim": {"practice": 1}} if "sim" in str(values.get("criteria")) else {},
        }
        return TrainConfig(**(given | values))  # type: ignore[arg-type]

    return built


@pytest.fixture(scope="module")
def trained(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of everything at once, which the tests below leave as it is."""
    config = make(criteria=",".join(CRITERIA), train="both", average=1.0)
    return train(config, output=tmp_path_factory.mktemp("runs"), name="all")


def said(run: Run, backbone: Backbone | None = None) -> tuple[Tensor, Tensor]:
    backbone = backbone or run.backbone
    texts = ("not good .", "a very dull film , and never funny at all .")
    items = run.encoder.items([Row(text, (text,)) for text in texts], labelled=False)
    batch = next(run.encoder.batches(items))
    with torch.no_grad():
        encoding = backbone.encode(batch, run.module)
        saliency = run.module(encoding.readings, batch.explainable, encoding.classes)
    return encoding.logits, saliency


def frozen(backbone: Backbone) -> dict[str, Tensor]:
    """A copy of everything that no training may touch: the numbers of quantised layers too."""
    own = {id(p) for p in backbone.learnable}
    found = {n: p.detach().clone() for n, p in backbone.named_parameters() if id(p) not in own}
    for name, module in backbone.model.named_modules():
        state = getattr(module, "state", None)
        if isinstance(getattr(state, "CB", None), Tensor):
            found[f"{name}.CB"] = state.CB.clone()
    return found


def adapters(path: Path) -> dict[str, Tensor]:
    return load_file(path / "adapter_model.safetensors")


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_trains_adapters_head_and_module_and_nothing_else(
    criterion: str, make: Make, tmp_path: Path
) -> None:
    config = make(criteria=criterion, train="both", average=1.0)
    run = train(config, output=tmp_path, name="run")
    untouched = load_backbone(
        config.model, run.backbone.labels, seed=config.seed, loading=config.loading
    )
    expected = frozen(untouched)
    assert any(name.endswith("CB") for name in expected)
    found = frozen(run.backbone)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    before, after = adapters(run.path / "plain"), adapters(run.path / "model")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before)
    assert {name.rpartition(".layers.")[2].partition(".")[0] for name in before} >= {"0", "1"}
    assert any("score" in name for name in before)
    start = InterpretableAttention(run.backbone.sizes, config.levels)
    pairs = zip(run.module.parameters(), start.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_training_the_module_alone_leaves_adapters_and_predictions(
    make: Make, tmp_path: Path
) -> None:
    config = make(criteria="comp", train="module", load_in_8bit=False, load_in_4bit=True)
    run = train(config, output=tmp_path, name="run")
    assert not (run.path / "plain").exists()
    assert run.record["accuracy"]["before"] == run.record["accuracy"]["after"]  # type: ignore[index]
    kept = adapters(run.path / "model")
    assert run.backbone.adapter is not None
    now = dict(run.backbone.adapter.named_parameters())
    for name, tensor in kept.items():
        part = "modules_to_save.default.weight" if "score" in name else "default.weight"
        assert torch.equal(now[name.removesuffix("weight") + part], tensor)
    assert any(kept[name].any() for name in kept if "lora_B" in name), "stage 1 trained them"
    assert not any(p.requires_grad for p in run.backbone.parameters())


def test_everything_at_once_in_bfloat16_with_checkpointing(make: Make, tmp_path: Path) -> None:
    config = make(
        criteria=",".join(CRITERIA),
        train="both",
        dtype="bfloat16",
        gradient_checkpointing=True,
        lora_dropout=0.1,
        target_modules="q_proj,up_proj",
    )
    run = train(config, output=tmp_path, name="run")
    assert {p.dtype for p in run.backbone.learnable} == {torch.float32}
    again = load_run(run.path)
    for found, expected in zip(said(again), said(run), strict=True):
        assert torch.equal(found, expected)
    names = adapters(run.path / "model")
    assert {n.partition(".lora_")[0].rpartition(".")[2] for n in names if "lora_" in n} == {
        "q_proj",
        "up_proj",
    }


def test_a_run_keeps_adapters_and_names_their_base(trained: Run) -> None:
    config = trained.config
    assert trained.record["base"] == {"model": config.model, "revision": None, "bits": 8}
    saved = json.loads((trained.path / "model" / "adapter_config.json").read_text())
    assert saved["base_model_name_or_path"] == config.model
    assert (saved["r"], saved["lora_alpha"]) == (4, 8)
    for part in ("model", "plain"):
        files = {path.name for path in (trained.path / part).iterdir()}
        assert files == {
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
    sums = (trained.path / "SHA256SUMS").read_text()
    assert "model/adapter_model.safetensors" in sums
    assert "quantization_config" not in (trained.path / "model" / "config.json").read_text()


@pytest.mark.parametrize("merge", [False, True])
def test_a_run_is_restored_to_equal_logits_and_saliency(merge: bool, trained: Run) -> None:
    again = load_run(trained.path, merge=merge)
    assert (again.backbone.adapter is None) == merge
    tolerance = 1e-5 if merge else 0.0
    for found, expected in zip(said(again), said(trained), strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    plain = load_plain(again)
    assert plain is not None
    assert not torch.allclose(said(again, plain)[0], said(again)[0])
    if not merge:
        shared = {p.data_ptr() for p in plain.parameters()}
        own = {p.data_ptr() for p in again.backbone.learnable}
        assert {p.data_ptr() for p in again.backbone.parameters()} - own <= shared


def test_a_run_of_adapters_is_a_model_to_start_from(
    trained: Run, make: Make, tmp_path: Path
) -> None:
    folder = str(trained.path / "model")
    run = train(make(model=folder), output=tmp_path, name="second")
    assert run.record["finetune"] is None, "its head is trained"
    assert run.record["base"] == trained.record["base"]
    assert torch.equal(said(run)[0], said(trained)[0])


def test_a_base_that_is_gone_is_one_line(trained: Run, make: Make, tmp_path: Path) -> None:
    base = copytree(trained.config.model, tmp_path / "base")
    run = train(make(model=str(base)), output=tmp_path, name="run")
    (base / "model.safetensors").unlink()
    with pytest.raises(IvraError) as caught:
        load_run(run.path)
    assert str(caught.value).startswith(f"cannot load the weights of {base} (")
    assert "\n" not in str(caught.value)


def test_a_whole_model_without_its_head_is_no_run(rows: str, tmp_path: Path) -> None:
    config = TrainConfig(
        criteria="suff", model="tiny-llama", data=rows, max_steps=1, finetune="never"
    )
    run = train(config, output=tmp_path, name="run")
    weights = run.path / "model" / "model.safetensors"
    found = load_file(weights)
    save_file({k: v for k, v in found.items() if "score" not in k}, weights, {"format": "pt"})
    (run.path / "SHA256SUMS").unlink()
    with pytest.raises(IvraError) as caught:
        load_run(run.path)
    assert str(caught.value) == (
        f"{run.path / 'model'} lacks the weights of its head, which would be drawn anew: the run "
        "is damaged, train it again"
    )


def stage_of(config: TrainConfig, run: Run) -> CriteriaStage:
    encoder = Encoder(run.backbone, config.max_length, config.batch_size)
    splits = [read_rows(config.data, part) for part in ("train", "dev")]
    items = [encoder.items(part) for part in splits]
    module = InterpretableAttention(run.backbone.sizes, config.levels)
    return CriteriaStage(config, encoder, module, *items)


def students_of(stage: CriteriaStage) -> Sequence[ScaffoldedStudent]:
    return stage.criteria[0].student.students  # type: ignore[union-attr, return-value]


def storage(backbones: Sequence[Backbone]) -> int:
    """Bytes of all tensors, each storage counted once."""
    sizes = {}
    for backbone in backbones:
        states = [getattr(m, "state", None) for m in backbone.modules()]
        numbers = [getattr(s, part, None) for s in states for part in ("CB", "SCB")]
        for tensor in (*backbone.parameters(), *backbone.buffers(), *numbers):
            if isinstance(tensor, Tensor):
                memory = tensor.untyped_storage()
                sizes[memory.data_ptr()] = memory.nbytes()
    return sum(sizes.values())


def test_scaffolding_does_not_double_the_model(trained: Run, make: Make) -> None:
    """Teacher and three students, practising, looking ahead and beginning anew."""
    stage = stage_of(make(criteria="sim", student_life=1), trained)
    before, base = said(trained), frozen(trained.backbone)
    batch = next(stage.encoder.batches(stage.valid))
    for _ in range(5):
        stage.criteria[0].inner_step(stage.view(batch))
        stage.criteria[0](stage.view(batch))
    students = students_of(stage)
    backbones = [trained.backbone, *(student.backbone for student in students)]
    own = sum(p.numel() * 4 for b in backbones[1:] for p in b.learnable)
    assert storage(backbones) == storage(backbones[:1]) + own
    assert own < 0.5 * storage(backbones[:1])
    for student in students:
        moving = {id(p) for p in (*student.backbone.learnable, *student.module.parameters())}
        assert {id(p) for p in student._parameters} == moving
        assert {id(p) for p in student.backbone.parameters() if p.requires_grad} < moving
    assert len({p.data_ptr() for b in backbones for p in b.learnable}) == 4 * len(
        trained.backbone.learnable
    )
    now = frozen(trained.backbone)
    assert set(now) == set(base)
    assert all(torch.equal(now[name], tensor) for name, tensor in base.items())
    for found, expected in zip(said(trained), before, strict=True):
        assert torch.equal(found, expected)


def views_of(stage: CriteriaStage) -> tuple[View, View]:
    first, second = (
        stage.view(next(stage.encoder.batches(items[:8]))) for items in (stage.train, stage.valid)
    )
    return first, second


@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_the_exact_hypergradient_of_quantised_weights_falls_back_in_one_line(
    bits: str, trained: Run, make: Make
) -> None:
    config = make(criteria="sim", **({"load_in_8bit": False} | {bits: True}))
    backbone = load_backbone(config.model, trained.backbone.labels, loading=config.loading)
    run = Run(trained.path, config, backbone, trained.module)
    stage = stage_of(config, run)
    student, views = students_of(stage)[0], views_of(stage)
    plan = Plan(scale_free=False, fixed_length=False)
    near = student.look_ahead(*views, plan)
    with pytest.warns(UserWarning, match="central-difference instead of exact") as caught:
        found = student.look_ahead(*views, plan._replace(method="exact"))
    assert "\n" not in str(caught[0].message)
    assert torch.equal(found.slope, near.slope)
    direction = [torch.randn_like(p) for p in student._parameters]
    _, exact = student._exact_slope(views[0].batch, direction)
    _, near_slope = student._difference_slope(views[0].batch, direction)
    torch.testing.assert_close(near_slope, exact, rtol=1e-2, atol=1e-3 * exact.abs().max().item())


def test_the_exact_hypergradient_works_under_checkpointing(trained: Run, make: Make) -> None:
    found = []
    for checkpointing in (False, True):
        config = make(criteria="sim", load_in_8bit=False, gradient_checkpointing=checkpointing)
        backbone = load_backbone(config.model, trained.backbone.labels, loading=config.loading)
        stage = stage_of(config, Run(trained.path, config, backbone, trained.module))
        ahead = students_of(stage)[0].look_ahead(*views_of(stage), Plan(method="exact"))
        found.append(ahead.slope)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-7)


def test_students_of_an_evaluation_share_the_base_too(
    trained: Run, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Backbone] = []
    call = Newcomers.__call__

    def recorded(self: Newcomers, seed: int) -> tuple[Backbone, InterpretableAttention]:
        student = call(self, seed)
        made.append(student[0])
        return student

    monkeypatch.setattr(Newcomers, "__call__", recorded)
    before = said(trained)
    result = evaluate(
        trained,
        EvalConfig(
            metrics=("sim",),
            rows=8,
            explainers=(),
            students=1,
            student_rows=16,
            student_epochs=1.0,
            controls=("random",),
            resamples=0,
        ),
    )
    assert set(result["figures"]) >= {"ivra", "none", "random"}
    base = {p.data_ptr() for p in trained.backbone.parameters()}
    for student in made:
        mine = {p.data_ptr() for p in student.learnable}
        assert {p.data_ptr() for p in student.parameters()} - mine <= base
        assert not mine & base
        start = trained.backbone.sibling(10_000)
        assert not all(map(torch.equal, student.learnable, start.learnable)), "it learnt"
    for found, expected in zip(said(trained), before, strict=True):
        assert torch.equal(found, expected)


def test_students_of_another_model_share_that_one(trained: Run, make: Make) -> None:
    config = make(student="tiny-gpt2", target_modules=())
    newcomers = Newcomers(config, trained.backbone)
    first, second = newcomers(1)[0], newcomers(2)[0]
    assert first.family.model_type == "gpt2"
    assert first.base is not None
    assert (first.base.model, first.base.bits) == ("tiny-gpt2", 8)
    mine = {p.data_ptr() for p in first.learnable}
    assert {p.data_ptr() for p in first.parameters()} - mine < {
        p.data_ptr() for p in second.parameters()
    }
    assert not all(map(torch.equal, first.learnable, second.learnable))


def test_questions_are_answered_with_adapters(question_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        criteria="comp",
        model="tiny-llama",
        lora=True,
        load_in_8bit=True,
        data=str(question_folder),
        max_length=48,
        finetune_epochs=0.5,
        max_steps=1,
        validations=1,
    )
    run = train(config, output=tmp_path, name="run")
    assert any("qa_outputs" in name for name in adapters(run.path / "model"))
    again = load_run(run.path)
    items = run.encoder.items(read_rows(str(question_folder), "dev"))
    batch = next(run.encoder.batches(items))
    with torch.no_grad():
        found, expected = (of.backbone.encode(batch).logits for of in (again, run))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-electra"])
def test_other_families_by_configuration(name: str, rows: str, tmp_path: Path) -> None:
    """As GPT-2 medium and ELECTRA base would be, each with its own targets."""
    config = TrainConfig(
        criteria="suff,cons",
        model=name,
        lora=True,
        load_in_8bit=True,
        train="both",
        data=rows,
        max_length=32,
        finetune_epochs=0.1,
        max_steps=1,
        validations=1,
    )
    run = train(config, output=tmp_path, name="run")
    for merge in (False, True):
        again = load_run(run.path, merge=merge)
        for found, expected in zip(said(again), said(run), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_batches_of_a_number_of_tokens(make: Make) -> None:
    config = make(model="tiny-llama", batch_tokens=100)
    backbone = load_backbone("tiny-llama", ("negative", "positive"))
    encoder = Encoder(backbone, config.max_length, config.batch_size, config.batch_tokens)
    items = encoder.items(read_rows(config.data, "train"))

    def epoch(seed: int | None) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        for batch in encoder.batches(items, seed):
            yield [item.row.id for item in batch.items], tuple(batch.input_ids.shape)

    epochs = {seed: list(epoch(seed)) for seed in (None, 0, 1)}
    for seed, found in epochs.items():
        assert all(rows * length <= 100 for _, (rows, length) in found)
        assert sorted(i for ids, _ in found for i in ids) == sorted(i.row.id for i in items)
        if seed is not None:
            assert len(found) == encoder.batches_in(items)
    assert epochs[0] != epochs[1]
    assert [i for ids, _ in epochs[None] for i in ids] == [item.row.id for item in items]
    padded = {seed: sum(r * n for _, (r, n) in found) for seed, found in epochs.items()}
    assert padded[0] < padded[None], "rows of like length stand together"


def test_a_run_with_a_number_of_tokens_a_step(make: Make, tmp_path: Path) -> None:
    config = make(batch_tokens=100, finetune_epochs=1.0, max_steps=None, epochs=1.0)
    run = train(config, output=tmp_path, name="run")
    items = run.encoder.lessons(read_rows(config.data, "train"))
    expected = run.encoder.batches_in(items)
    assert expected > 3
    assert run.record["finetune"]["steps"] == expected  # type: ignore[index]
    assert run.record["criteria"]["steps"] == expected  # type: ignore[index]
    assert run.encoder.batch_tokens == 100


def test_the_loading_of_a_configuration() -> None:
    config = TrainConfig(lora=True, lora_r=2, lora_alpha=3, lora_dropout=0.5, target_modules="a,b")
    assert config.loading.lora == Lora(2, 3, 0.5, ("a", "b"))
    assert config.loading.bits is None
    assert TrainConfig(lora=True, load_in_4bit=True).loading.bits == 4
    assert TrainConfig().loading.lora is None
    assert TrainConfig(lora=True).rate(False) == 2e-4
    assert TrainConfig().rate(False) == 5e-5
    assert TrainConfig(lora=True).rate(True) == 1e-3


class Break(Hooks):
    """Something ends the process after a step of stage 2."""

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        if (stage, step) == ("criteria", 2):
            raise ZeroDivisionError


def test_a_run_with_adapters_is_resumed_to_the_bit(make: Make, tmp_path: Path) -> None:
    """Adapters, head, students on the shared base, and what stage 1 made of them."""
    config = make(criteria="sim,suff", train="both", max_steps=3, student_life=2)
    whole = train(config, output=tmp_path, name="whole")
    with pytest.raises(ZeroDivisionError):
        train(config, output=tmp_path, name="broken", hooks=(Break(),), checkpoint_every=1)
    run = resume(tmp_path / "broken")
    assert run.record["resumed"]
    for part in ("module.safetensors", "SHA256SUMS", "log.jsonl"):
        assert (run.path / part).read_bytes() == (whole.path / part).read_bytes(), part
    for found, expected in zip(said(run), said(whole), strict=True):
        assert torch.equal(found, expected)
