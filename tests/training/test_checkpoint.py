"""Checkpoints: what comes back is what was saved, and what is damaged or foreign is refused."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from ivra.errors import IvraError
from ivra.training.checkpoint import (
    Checkpoints,
    Every,
    has_checkpoint,
    load_checkpoint,
    parse_every,
)
from ivra.training.checksums import SUMS
from ivra.training.packing import pack, unpack

FACTS = {
    "config": {"lr": 0.1},
    "data": {"train": {"rows": 3, "sha256": "x"}},
    "device": "cpu",
    "finetune": None,
    "before": 0.5,
    "seconds": 1.5,
    "resumed": [],
    "processes": 1,
}
STATE = {
    "step": 3,
    "score": float("nan"),
    "weights": [torch.arange(6.0).reshape(2, 3), torch.tensor(True)],
    "nested": {"": None, "a.b": [1, 2.5, "x"], "a": {"b": torch.zeros(0)}},
}


def saved(folder: Path, state: dict = STATE, **facts: object) -> Path:
    Checkpoints(folder, Every(), lambda: FACTS | facts).save("criteria", 3, state)
    return folder / "checkpoint"


def same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(same(value, other[key]) for key, value in one.items())
        )
    if isinstance(one, list | tuple):
        return (
            isinstance(other, list)
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    return one == other or (one != one and other != other)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(),
    st.lists(st.floats(allow_nan=False), max_size=3).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    ),
    st.sampled_from([torch.int64, torch.uint8, torch.bool, torch.bfloat16]).map(
        lambda kind: torch.ones(2, 2, dtype=kind)
    ),
)
states = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(states)
def test_what_is_packed_comes_back_to_the_bit(state: object) -> None:
    facts, tensors = pack(state)
    assert same(state, unpack(json.loads(json.dumps(facts)), tensors))


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path) is None
    (tmp_path / "log.jsonl").write_text("12345")
    saved(tmp_path)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert same(STATE, found.state)
    assert (found.stage, found.step, found.log, found.before) == ("criteria", 3, 5, 0.5)
    assert has_checkpoint(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "log.jsonl"]


def test_memory_that_is_shared_is_saved_twice(tmp_path: Path) -> None:
    rows = torch.arange(6.0)
    saved(tmp_path, {"all": rows, "half": rows[:3], "turned": rows.reshape(2, 3).T})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert same({"all": rows, "half": rows[:3], "turned": rows.reshape(2, 3).T}, found.state)


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        ({"a": object()}, "state.a", "object"),
        ({"a": [{1: 2}]}, "state.a.0", "dict"),
        ({"a": b"x"}, "state.a", "bytes"),
        ({"a": {"$tensor": "x"}}, "state.a", "dict"),
    ],
)
def test_what_cannot_be_kept_is_named(tmp_path: Path, value: dict, place: str, kind: str) -> None:
    saved(tmp_path)
    with pytest.raises(IvraError) as caught:
        saved(tmp_path, value)
    assert str(caught.value) == (
        f"cannot save a checkpoint: {place} is {kind}: expected dicts with text keys, lists, "
        "tensors, numbers, text, booleans and None"
    )
    assert load_checkpoint(tmp_path) is not None, "the last one stays"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, Every()),
        (100, Every(steps=100)),
        ("7", Every(steps=7)),
        ("90s", Every(seconds=90)),
        ("10m", Every(seconds=600)),
        ("2h", Every(seconds=7200)),
        ("never", Every(never=True)),
    ],
)
def test_how_often(text: str | int | None, expected: Every) -> None:
    assert parse_every(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1d", "m", "often", 0, -3, "\u0661"])
def test_how_often_it_cannot_be(text: str | int) -> None:
    with pytest.raises(IvraError) as caught:
        parse_every(text)
    assert str(caught.value) == (
        f"checkpoint_every is '{text}': expected a number of steps (100), a time (90s, 10m, 1h) or "
        "never"
    )


def test_due_by_steps_and_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    steps = Checkpoints(tmp_path, Every(steps=3), lambda: FACTS)
    assert [step for step in range(1, 8) if steps.due(step)] == [3, 6]
    timed = Checkpoints(tmp_path, Every(seconds=10), lambda: FACTS)
    assert not timed.due(1)
    now[0] += 10
    assert timed.due(2)
    timed.save("criteria", 2, STATE)
    assert not timed.due(3)
    now[0] += 9.5
    assert not timed.due(4)
    assert not Checkpoints(tmp_path, Every(), lambda: FACTS).due(1)


def test_every_bit_of_it_counts(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for name in ("state.json", "state.safetensors", SUMS):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 40)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << (place % 8)
            (folder / name).write_bytes(bytes(damaged))
            with pytest.raises(IvraError, match=r"not as it was saved|no checkpoint of"):
                load_checkpoint(tmp_path)
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            (folder / name).write_bytes(whole[:size])
            with pytest.raises(IvraError, match=r"not as it was saved|no checkpoint of"):
                load_checkpoint(tmp_path)
        (folder / name).write_bytes(whole)
    assert load_checkpoint(tmp_path) is not None


@pytest.mark.parametrize("name", ["state.json", "state.safetensors", SUMS])
def test_every_file_of_it_counts(tmp_path: Path, name: str) -> None:
    (saved(tmp_path) / name).unlink()
    with pytest.raises(IvraError, match="is no checkpoint of this version of ivra") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def resummed(folder: Path) -> None:
    """Checksums that fit, as of someone who means harm."""
    import hashlib

    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("state.json", "state.safetensors")
    ]
    (folder / SUMS).write_text("".join(lines))


class Boom:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("/tmp/ivra-was-here",))


def pickled(folder: Path) -> None:
    (folder / "state.safetensors").write_bytes(pickle.dumps(Boom()))


def torch_saved(folder: Path) -> None:
    torch.save({"a": Boom()}, folder / "state.safetensors")


def huge_header(folder: Path) -> None:
    (folder / "state.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


def header_past_the_end(folder: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    (folder / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def deep_json(folder: Path) -> None:
    (folder / "state.json").write_text("[" * 100_000)


def deep_state(folder: Path) -> None:
    deep = '{"a":' * 3000 + "1" + "}" * 3000
    values = json.loads((folder / "state.json").read_text())
    text = json.dumps(values | {"state": 0}).replace('"state": 0', f'"state": {deep}')
    (folder / "state.json").write_text(text)


def foreign_json(folder: Path) -> None:
    (folder / "state.json").write_text('{"global_step": 3, "log_history": []}')


def later_format(folder: Path) -> None:
    values = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(values | {"format": 2}))


def no_such_tensor(folder: Path) -> None:
    save_file({"../../../etc/passwd": torch.zeros(1)}, folder / "state.safetensors")


def not_text(folder: Path) -> None:
    (folder / "state.json").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "harm",
    [
        pickled,
        torch_saved,
        huge_header,
        header_past_the_end,
        deep_json,
        deep_state,
        foreign_json,
        later_format,
        no_such_tensor,
        not_text,
    ],
)
def test_what_means_harm_is_refused_in_one_line(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    folder = saved(tmp_path)
    harm(folder)
    resummed(folder)
    with pytest.raises(IvraError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"{folder} is no checkpoint of this version of ivra (")
    assert str(caught.value).endswith("): train anew under another name")
    assert "\n" not in str(caught.value)
    assert not Path("/tmp/ivra-was-here").exists()


@pytest.mark.parametrize("name", ["../log.jsonl", "/etc/passwd", "state.json/../../x", "more.bin"])
def test_checksums_name_the_two_files_and_no_other(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path)
    (folder / SUMS).write_text((folder / SUMS).read_text() + f"{'0' * 64}  {name}\n")
    with pytest.raises(IvraError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{folder} is not as it was saved (SHA256SUMS says otherwise): copy the run again, or "
        "train anew under another name"
    )


def test_names_of_tensors_are_no_files(tmp_path: Path) -> None:
    state = {"../../up": torch.ones(1), "/tmp/x": torch.zeros(2)}
    saved(tmp_path, state)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert same(state, found.state)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint"]
