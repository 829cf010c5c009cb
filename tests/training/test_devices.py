"""Steps that several processes, or several batches, make up together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ivra.attention import masked_softmax
from ivra.backbones import load_backbone
from ivra.data import Row, collate, encode_rows
from ivra.errors import IvraError
from ivra.losses import Consistency, View
from ivra.training import Encoder, TrainConfig, resume, train
from ivra.training.devices import ALONE, Devices, devices_of, share
from ivra.training.log import read_log
from ivra.training.task import Shared

Configure = Callable[..., TrainConfig]
ROW_WISE = {
    "criteria": "suff,comp",
    "options": {"suff": {"bins_mode": "mean"}, "comp": {"bins_mode": "mean"}},
    "topk_gradient": "straight-through",
    "finetune": "never",
}
"""Criteria that draw nothing."""


class Pretended(Devices):
    """One of several processes, none of which is there."""

    def __init__(self, count: int, index: int) -> None:
        super().__init__()
        self.count, self.index = count, index


@given(st.integers(0, 300), st.integers(1, 9))
def test_shares_are_the_whole_and_nearly_alike(count: int, parts: int) -> None:
    places = [range(count)[share(count, parts, part)] for part in range(parts)]
    assert [place for part in places for place in part] == list(range(count))
    sizes = {len(part) for part in places}
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_backbone("tiny-electra", ("no", "yes")), 16, 2)


@given(rows=st.integers(1, 30), count=st.integers(1, 4), accumulation=st.integers(1, 3))
def test_a_step_is_split_among_processes_and_batches(
    encoder: Encoder, rows: int, count: int, accumulation: int
) -> None:
    items = encoder.items([Row(str(n), ("good " * (1 + n % 4),), "yes") for n in range(rows)])
    each = [Shared(encoder, Pretended(count, index), accumulation) for index in range(count)]
    if rows < count:
        with pytest.raises(IvraError, match=f"{rows} rows for {count} processes: expected one"):
            each[0].steps(items)
        return
    batches = list(each[0].batches(items, 3))
    assert len(batches) == each[0].steps(items)
    seen = []
    for batch in batches:
        parts = [shared.split(batch) for shared in each]
        assert len({len(own) for own in parts}) == 1, "all processes come to meet as often"
        assert all(len(part) >= 1 for own in parts for part in own)
        assert len(parts[0]) <= accumulation
        ids = [item.row.id for own in parts for part in own for item in part.items]
        assert ids == [item.row.id for item in batch.items]
        seen += ids
    assert len(set(seen)) == len(seen)
    assert rows - len(seen) < count, "only rows that some process would be without are left out"


def test_a_process_alone_trains_on_the_batch_itself(encoder: Encoder) -> None:
    items = encoder.items([Row("a", ("good",), "yes")])
    (batch,) = Shared(encoder, ALONE, 1).batches(items, 0)
    assert Shared(encoder, ALONE, 1).split(batch) == (batch,)


@pytest.mark.parametrize("trains", ["module", "both"])
def test_batches_that_are_added_up_are_the_large_batch(
    config: Configure, tmp_path: Path, trains: str
) -> None:
    """32 rows: 24, and a last step of 8 that is split unevenly."""
    rest = {**ROW_WISE, "train": trains, "max_steps": 4}
    large = train(config(batch_size=24, **rest), output=tmp_path, name="large")
    parts = config(batch_size=8, gradient_accumulation_steps=3, **rest)
    added = train(parts, output=tmp_path, name="added")
    for one, other in (
        (large.module.state_dict(), added.module.state_dict()),
        (large.backbone.state_dict(), added.backbone.state_dict()),
    ):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6)
    logs = [read_log(run.path / "log.jsonl") for run in (large, added)]
    assert len(logs[0]) == len(logs[1])
    for a, b in zip(*logs, strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-4, abs=1e-6)


def view_of(rows: list[int], logits: torch.Tensor, hidden: torch.Tensor, backbone: object) -> View:
    """Some rows of four different lengths, with saliencies of these logits."""
    texts = [Row(str(n), ("good " * (2 + n),), "yes") for n in rows]
    items = encode_rows(texts, backbone.tokenizer, ["no", "yes"], 32)  # type: ignore[attr-defined]
    batch = collate(items, 0)
    length = batch.input_ids.shape[1]
    saliency = masked_softmax(logits[rows, :length], batch.explainable)
    shown = hidden[rows, :length]
    outcome = shown.mean((1, 2))[:, None] * torch.tensor([1.0, -1.0], dtype=logits.dtype)
    return View(batch, outcome, saliency, shown, lambda keep: outcome, lambda other: other)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("form", ["scale-free", "ratio", "clustering"])
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_the_gradient_of_global_consistency_is_that_of_all_rows(
    encoder: Encoder, form: str, distance: str
) -> None:
    """Two processes, of three rows and two, each with a gradient to its own alone."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    hidden = torch.randn(5, 8, 3, generator=generator, dtype=torch.float64)
    criterion = Consistency(form, distance=distance, scope="global")  # type: ignore[arg-type]

    whole = [value.clone().requires_grad_() for value in (logits, hidden)]
    expected = criterion(view_of([0, 1, 2, 3, 4], *whole, encoder.backbone))["cons"]
    expected.mean().backward()

    parts = [[0, 1, 2], [3, 4]]
    found, slopes, compared = [], [torch.zeros_like(v) for v in (logits, hidden)], []
    for index, rows in enumerate(parts):
        own = [value.clone().requires_grad_() for value in (logits, hidden)]
        views = [
            view_of(each, *(own if place == index else (logits, hidden)), encoder.backbone)
            for place, each in enumerate(parts)
        ]
        met = Meeting(criterion, views, index)
        terms = met.terms()["cons"]
        found.append(terms.detach())
        (terms.mean() * len(rows) / 5).backward()
        for slope, value in zip(slopes, own, strict=True):
            if value.grad is not None:
                slope += value.grad
        compared.append(Consistency(form, distance=distance)(views[index])["cons"])  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cat(found), expected.detach())
    for slope, value in zip(slopes, whole, strict=True):
        if value.grad is not None:
            torch.testing.assert_close(slope, value.grad)
    assert not torch.allclose(torch.cat(compared), expected), "or nothing would be tested"


class Meeting:
    """What a process is shown when the others gather as it does."""

    def __init__(self, criterion: Consistency, views: list[View], index: int) -> None:
        from dataclasses import replace

        self.criterion, self.index = criterion, index
        given: list[list[torch.Tensor]] = []
        for view in views:
            record: list[torch.Tensor] = []

            def listen(rows: torch.Tensor, record: list = record) -> tuple[torch.Tensor, int]:
                record.append(rows)
                return rows, 0

            criterion(replace(view, gather=listen))
            given.append(record)
        self.given, self.asked = given, 0
        self.view = replace(views[index], gather=self.gather)

    def gather(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        parts = [record[self.asked].detach() for record in self.given]
        parts[self.index] = rows
        self.asked += 1
        length = max(part.shape[1] for part in parts)
        blank = [
            torch.cat([p, p.new_zeros(len(p), length - p.shape[1], *p.shape[2:])], 1) for p in parts
        ]
        return torch.cat(blank), sum(len(part) for part in parts[: self.index])

    def terms(self) -> dict[str, torch.Tensor]:
        return self.criterion(self.view)


def test_a_numbered_device_is_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices_of("cuda:1") == (ALONE, "cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(IvraError) as caught:
        devices_of("cuda:1")
    assert str(caught.value) == (
        "2 processes cannot share the device 'cuda:1': expected its kind, 'cuda'"
    )


def test_a_run_is_resumed_by_as_many_processes(config: Configure, tmp_path: Path) -> None:
    from ivra.training import Hooks

    class Break(Hooks):
        def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
            raise RuntimeError("broken on purpose")

    with pytest.raises(RuntimeError):
        train(config(finetune="never"), output=tmp_path, name="cut", hooks=(Break(),))
    state = tmp_path / "cut" / "checkpoint" / "state.json"
    text = state.read_text()
    assert '"processes": 1' in text
    state.write_text(text.replace('"processes": 1', '"processes": 2'))
    sums = tmp_path / "cut" / "checkpoint" / "SHA256SUMS"
    import hashlib

    names = ("state.json", "state.safetensors")
    digests = [hashlib.sha256((state.parent / name).read_bytes()).hexdigest() for name in names]
    sums.write_text("".join(f"{d}  {n}\n" for d, n in zip(digests, names, strict=True)))
    with pytest.raises(IvraError) as caught:
        resume(tmp_path / "cut")
    assert str(caught.value) == (
        f"{tmp_path / 'cut'} was begun by 2 processes, not 1: start as many"
    )


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def command(launcher: str) -> list[str]:
    here = Path(sys.executable).parent
    if launcher == "torchrun":
        start = ["torchrun", "--nproc-per-node=2", f"--master-port={free_port()}"]
    else:
        start = ["accelerate", "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
        start += ["--mixed_precision=no", "--dynamo_backend=no"]
        start += [f"--main_process_port={free_port()}"]
    return [str(here / start[0]), *start[1:], "-m", "ivra", "train"]


OPTIONS = (
    "--max-length=24",
    "--validations=2",
    "--max-steps=6",
    "--finetune=never",
    "--topk-gradient=straight-through",
    "--option=suff.bins_mode=mean",
)
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}


def flags(output: Path, folder: str, name: str, batch_size: int) -> list[str]:
    given = [f"--data={folder}", f"--output={output}", f"--name={name}"]
    return [*given, f"--batch-size={batch_size}", *OPTIONS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "trains", "criteria", "rows"),
    [
        ("torchrun", "both", ["suff,cons", "--option=cons.scope=global"], 6),
        ("torchrun", "module", ["suff"], 8),
        (
            "torchrun",
            "module",
            [
                "suff,cons",
                "--option=cons.scope=global",
                "--combine=preference",
                "--normalise=none",  # of gradients each process measures those of its own rows
            ],
            6,
        ),
        ("accelerate", "module", ["suff,cons", "--option=cons.scope=global"], 6),
    ],
)
def test_two_processes_give_what_one_gives(
    tmp_path: Path, folder: str, launcher: str, trains: str, criteria: list[str], rows: int
) -> None:
    """With the same rows a step: consistency over all of them, the same preference drawn by both,
    and a log of the same terms.

    The metric of consistency is that of a batch; six rows are one whatever the batch size.
    """
    rest = [f"--train={trains}", f"--validation-rows={rows}", f"--criteria={criteria[0]}"]
    rest += criteria[1:]
    one = [sys.executable, "-m", "ivra", "train", *flags(tmp_path, folder, "one", 12), *rest]
    subprocess.run(one, check=True, capture_output=True, env=ENVIRONMENT)
    two = [*command(launcher), *flags(tmp_path, folder, "two", 6), *rest]
    done = subprocess.run(two, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.count("run written to") == 1
    assert sorted(os.listdir(tmp_path)) == ["latest", "one", "two"]
    assert os.readlink(tmp_path / "latest") == "two"
    names = ["module.safetensors"] + ["model/model.safetensors"] * (trains == "both")
    for name in names:
        expected, found = (load_file(tmp_path / run / name) for run in ("one", "two"))
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5, msg=key)
    logs = [read_log(tmp_path / run / "log.jsonl") for run in ("one", "two")]
    assert len(logs[0]) == len(logs[1]) == 6 + 3
    for a, b in zip(*logs, strict=True):
        assert (a["step"], a["split"]) == (b["step"], b["split"])
        assert a["terms"] == pytest.approx(b["terms"], rel=1e-3, abs=1e-5)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["processes"] == 2


def started(folder: Path) -> list[int]:
    """The launcher and its workers, by the folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in path.read_text(errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
def test_two_processes_that_are_killed_are_resumed(tmp_path: Path, folder: str) -> None:
    """Perturbed cuts draw in every process; the students' states differ too."""
    rest = ["--criteria=sim,suff", "--topk-gradient=sampled", "--student-rows=8", "--max-steps=8"]
    rest += ["--max-length=24", "--batch-size=4", f"--data={folder}", "--finetune-epochs=1"]
    rest += ["--option=sim.practice=1", "--validations=8", "--validation-rows=8"]
    rest += [f"--output={tmp_path}"]
    whole = [*command("torchrun"), *rest, "--name=whole"]
    subprocess.run(whole, check=True, capture_output=True, env=ENVIRONMENT)
    cut = subprocess.Popen(
        [*command("torchrun"), *rest, "--name=cut"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    state = tmp_path / "cut" / "checkpoint" / "state.json"
    log = tmp_path / "cut" / "log.jsonl"
    for _ in range(3000):
        if log.exists() and '"criteria", "step": 3' in log.read_text() and state.exists():
            break
        time.sleep(0.1)
    while left := started(tmp_path):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cut.poll()
    cut.wait()
    assert state.exists()
    again = [*command("torchrun"), "--resume", str(tmp_path / "cut")]
    done = subprocess.run(again, check=False, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert record["resumed"][0]["stage"] == "criteria"
    for name in ("module.safetensors", "model/model.safetensors", "log.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
