"""A body that is shared out among processes: what is refused, what stays the same, what is held."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from ivra.attention import LEVELS, InterpretableAttention
from ivra.backbones import Backbone, Loading, Lora, gathered, load_backbone, shard
from ivra.data import Batch, Row, read_rows
from ivra.errors import IvraError, NotFiniteError
from ivra.training import Encoder, TrainConfig, lesson, make_config, train
from ivra.training.devices import Devices
from ivra.training.log import read_log
from ivra.training.loop import Loop, Objective
from ivra.training.stream import endless

Configure = Callable[..., TrainConfig]
ROWS = [Row(str(n), ("not good . " * (1 + n % 4),), "yes") for n in range(10)]


class Pretended(Devices):
    """One of several processes, none of which is there."""

    def __init__(self, count: int, index: int) -> None:
        super().__init__()
        self.count, self.index = count, index


def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a launcher seem to have started them; none is there."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(lesson, "devices_of", lambda name: (Pretended(2, 0), name))


def refused(config: TrainConfig, output: Path) -> str:
    with pytest.raises(IvraError) as caught:
        train(config, output=output)
    assert not list(output.iterdir()), "nothing was written"
    return str(caught.value)


def test_one_process_has_nobody_to_share_with(config: Configure, tmp_path: Path) -> None:
    assert refused(config(fsdp=True), tmp_path) == (
        "fsdp shares the model out among several processes, but there is one: start more, as in "
        "torchrun --nproc-per-node 2 -m ivra train --fsdp"
    )


def test_accelerate_is_told_to_leave_it_to_ivra(
    config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert refused(config(), tmp_path) == (
        "accelerate launch was told to use FSDP, which would shard nothing here: leave --use_fsdp "
        "out, and give ivra train --fsdp"
    )


def test_students_need_the_whole_model(
    config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_processes(monkeypatch)
    assert refused(config(fsdp=True, lora=True, criteria="suff,sim"), tmp_path) == (
        "fsdp with criterion 'sim', whose students need the whole model: leave one of them out"
    )


@pytest.mark.parametrize(
    ("trains", "stage"), [("module", "auto"), ("module", "always"), ("both", "never")]
)
def test_a_body_that_would_be_trained_is_not_shared_out(
    config: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: str, stage: str
) -> None:
    two_processes(monkeypatch)
    assert refused(config(fsdp=True, train=trains, finetune=stage), tmp_path) == (
        "fsdp needs the body frozen: expected lora, or train module with a model that knows the "
        f"task, or finetune never; got train {trains} and finetune {stage}"
    )


@pytest.mark.parametrize("bits", ["load_in_8bit", "load_in_4bit"])
def test_quantised_weights_are_not_shared_out(bits: str) -> None:
    with pytest.raises(IvraError) as caught:
        make_config({"fsdp": True, "lora": True, bits: True})
    assert str(caught.value) == (
        "fsdp with load_in_8bit or load_in_4bit: quantised weights cannot be shared out; leave one "
        "of them out"
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_process_makes_as_many_passes(count: int) -> None:
    """Ten rows are four batches; one that would be a batch short gets the last one for nothing."""
    encoder = Encoder(load_backbone("tiny-electra", ("no", "yes")), 16, 3)
    encoder.backbone.sharded = True
    items = encoder.items(ROWS)
    each = [list(encoder.own_batches(items, Pretended(count, i))) for i in range(count)]
    assert {len(own) for own in each} == {-(-4 // count)}
    seen = [int(place) for own in each for places, _ in own for place in places]
    assert sorted(seen) == list(range(10))
    assert all(len(batch) for own in each for _, batch in own)


class OneOfTwo(Devices):
    """A process whose neighbour finds something that is not finite at the meeting ``wrong``."""

    def __init__(self, wrong: int) -> None:
        super().__init__()
        self.wrong, self.met = wrong, 0

    def values(self, value: Any) -> list[Any]:
        self.met += 1
        if isinstance(value, bool):
            return [value, self.met == self.wrong]
        return [value, ["batch of rows 7: the loss is nan", {}]]


def test_what_is_not_finite_elsewhere_ends_the_step_before_the_backward_pass() -> None:
    encoder = Encoder(load_backbone("tiny-electra", ("no", "yes")), 16, 2)
    weight = nn.Parameter(torch.ones(()))

    def objective(batch: Batch) -> Objective:
        return Objective(weight * 1.0, {"task": 1.0})

    loop = Loop("criteria", [([weight], 0.1)], objective, 1, devices=OneOfTwo(1))
    with pytest.raises(NotFiniteError, match=r"^criteria step 1, batch of rows 7: the loss is nan"):
        loop.run(endless(lambda n: encoder.batches(encoder.items(ROWS))))
    assert weight.grad is None


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Process groups of this process alone."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def slopes(backbone: Backbone, by: str) -> dict[str, Tensor]:
    """Gradients of what is learnt, through what was read of the layers alone, or the logits."""
    module = InterpretableAttention(backbone.sizes, LEVELS)
    module.readout.data.fill_(0.5)
    encoder = Encoder(backbone, 16, 8)
    batch = next(encoder.batches(encoder.items(ROWS)))
    encoding = backbone.encode(batch, module)
    saliency = module(encoding.readings, batch.explainable, encoding.classes)
    keep = saliency / saliency.amax(-1, keepdim=True).detach()
    loss = {
        "readings": lambda: (saliency**2).sum(),
        "logits": lambda: encoding.logits[:, 0].sum(),
        "attention": lambda: backbone.rerun(batch, keep)[:, 0].sum(),
        "embedding": lambda: backbone.rerun(batch, keep, "embedding")[:, 0].sum(),
    }[by]()
    backbone.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone()
        for part in (backbone, module)
        for name, parameter in part.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_whole_model(
    group: None, llama_folder: Callable[..., Path], checkpointing: bool
) -> None:
    """Padding is the end of text here, so that embeddings are looked up before the pass too."""
    loading = Loading(lora=Lora(r=4), gradient_checkpointing=checkpointing)
    folder = str(llama_folder(2, False))
    whole, shared = (load_backbone(folder, ("no", "yes"), loading=loading) for _ in range(2))
    for backbone in (whole, shared):
        generator = torch.Generator().manual_seed(0)
        for name, parameter in backbone.named_parameters():
            if "lora_B" in name:  # or nothing would flow through the adapters
                parameter.data.normal_(generator=generator).mul_(0.1)
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_("lora_" in name)
    shard(shared, 1, torch.device("cpu"))
    for by in ("readings", "logits", "attention", "embedding"):
        expected, found = slopes(whole, by), slopes(shared, by)
        assert expected.keys() == found.keys()
        assert any("lora_" in name for name in found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_body_that_was_shared_out_is_saved_whole(
    group: None, llama_folder: Callable[..., Path], tmp_path: Path
) -> None:
    whole, shared = (load_backbone(str(llama_folder()), ("no", "yes")) for _ in range(2))
    shard(shared, 1, torch.device("cpu"))
    assert isinstance(shared.embeddings.weight, DTensor)
    assert not any(p.requires_grad for p in shared.parameters())
    assert gathered(shared, False) == {}, "one process alone keeps it"
    shared.save_pretrained(tmp_path / "shared", gathered(shared, True))
    whole.save_pretrained(tmp_path / "whole")
    expected, found = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "shared"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    configs = [(tmp_path / n / "config.json").read_text() for n in ("whole", "shared")]
    assert configs[0] == configs[1]


PROGRAM = """
import json, sys
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from ivra.losses import Sufficiency, Terms
from ivra.training import make_config, resume, train
from ivra.training.loop import Loop

values, output = json.loads(sys.argv[1]), Path(sys.argv[2])
run = train(make_config(values), output=output, name="two")
body = list(run.backbone.model.base_model.named_parameters())
held = {
    "shares": {n: [p.to_local().numel(), p.numel()] for n, p in body if isinstance(p, DTensor)},
    "whole": [n for n, p in body if not isinstance(p, DTensor)],
}
rank = torch.distributed.get_rank()
(output.parent / f"held{rank}.json").write_text(json.dumps(held))

learn, steps = Loop._learn, []
def break_off(self, batch, optimizer):
    steps.append(self.stage)
    if steps.count("criteria") == 3:
        raise RuntimeError("broken on purpose")
    return learn(self, batch, optimizer)
Loop._learn = break_off
try:
    train(make_config(values), output=output, name="cut", checkpoint_every=1)
except RuntimeError as error:
    assert "on purpose" in str(error)
Loop._learn = learn
torch.distributed.barrier()  # the first process may still be at its checkpoint
resume(output / "cut")

forward, calls = Sufficiency.forward, []
def go_wrong(self, view):
    calls.append(self)
    terms = forward(self, view)
    wrong = rank == 1 and len(calls) == 2
    return Terms(**{name: term / 0 if wrong else term for name, term in terms.items()})
Sufficiency.forward = go_wrong
meeting = {"criteria": "suff,cons", "options": {"cons": {"scope": "global"}}, "finetune": "never"}
train(make_config(values | meeting | {"skip_nonfinite": True}), output=output, name="wrong")
"""
"""Trains; says what this process holds of the body; trains again, breaks off, and goes on; trains
with a term that is not finite at the second step of the second process."""


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A few of the built-in rows with their rationales, as files."""
    made = tmp_path_factory.mktemp("marked")
    for part, count in (("train", 48), ("dev", 9), ("test", 8)):
        lines = [
            {"text": r.texts[0], "label": r.label, "rationale": (r.rationale or ((),))[0]}
            for r in read_rows("builtin", part)[:count]
        ]
        (made / f"{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        {"criteria": "suff,plaus", "lora": True, "train": "both", "finetune": "always"},
        {"criteria": "suff,plaus", "lora": True, "train": "both", "gradient_checkpointing": True},
        {"criteria": "suff,comp", "finetune": "never"},
    ],
    ids=["lora", "lora-checkpointing", "frozen"],
)
def test_two_processes_share_the_body_and_give_what_one_gives(
    tmp_path: Path, marked: str, llama_folder: Callable[..., Path], way: dict[str, object]
) -> None:
    """Nine rows of validation are three batches of one process and two of the other, or two."""
    values: dict[str, object] = {
        "model": str(llama_folder(2, False)),
        "data": marked,
        "max_length": 24,
        "validations": 2,
        "max_steps": 4,
        "finetune_epochs": 0.5,
        "finetune_removal": 0.0,
        "combine_on": "all",
        "topk_gradient": "straight-through",
        "options": {"suff": {"bins_mode": "mean"}},
        **way,
    }
    if "comp" in str(way["criteria"]):
        values["options"] = {name: {"bins_mode": "mean"} for name in ("suff", "comp")}
    output = tmp_path / "runs"
    train(make_config(values | {"batch_size": 8}), output=output, name="one")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    start = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join(filter(None, sys.path))
    alone = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    given = json.dumps(values | {"batch_size": 4, "fsdp": True})
    done = subprocess.run(
        [*start, str(program), given, str(output)],
        check=False,
        capture_output=True,
        text=True,
        env=alone,
    )
    assert done.returncode == 0, done.stderr
    saved = "adapter_model" if way.get("lora") else "model"
    for name in ("module.safetensors", f"model/{saved}.safetensors"):
        expected, found = (load_file(output / run / name) for run in ("one", "two"))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=key)
        assert (output / "cut" / name).read_bytes() == (output / "two" / name).read_bytes()
    logs = [read_log(output / run / "log.jsonl") for run in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) >= 4 + 3
    for a, b in zip(*logs, strict=True):
        assert (a["stage"], a["step"], a["split"]) == (b["stage"], b["step"], b["split"])
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-3, abs=1e-5)
    wrong = json.loads((output / "wrong" / "run.json").read_text())
    assert wrong["criteria"]["skipped"] == 1
    assert wrong["criteria"]["steps"] == 4
    both = [json.loads((tmp_path / f"held{rank}.json").read_text()) for rank in range(2)]
    for held in both:
        assert all("lora_" in name for name in held["whole"])
    for name, (own, numel) in both[0]["shares"].items():
        other = both[1]["shares"][name][0]
        assert own + other == numel, name
    for held in both:
        own, numel = (sum(pair[i] for pair in held["shares"].values()) for i in (0, 1))
        assert abs(own / numel - 0.5) < 0.02
