"""Runs that were moved or damaged, and names that cannot be: one line, exit code 2."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from ivra.training import Run, load_run

Call = Callable[..., Result]


def refused(result: Result, *pieces: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    for piece in pieces:
        assert piece in line


@pytest.fixture
def copy(trained: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


@pytest.mark.parametrize("part", ["module.safetensors", "model/model.safetensors"])
@pytest.mark.parametrize("place", [3, 100, -1])
def test_one_flipped_bit_in_the_weights(call: Call, copy: Path, part: str, place: int) -> None:
    content = bytearray((copy / part).read_bytes())
    content[place] ^= 4
    (copy / part).write_bytes(content)
    told = (f"{copy / part} is not the file that was saved", "remove SHA256SUMS")
    refused(call("explain", copy, "--text", "good"), *told)
    refused(call("eval", copy, "--accuracy"), *told)


def test_weights_that_were_changed_on_purpose(call: Call, copy: Path) -> None:
    content = bytearray((copy / "module.safetensors").read_bytes())
    content[-1] ^= 4
    (copy / "module.safetensors").write_bytes(content)
    (copy / "SHA256SUMS").unlink()
    assert call("explain", copy, "--text", "good").exit_code == 0


def test_checksums_that_are_damaged_or_lead_elsewhere(call: Call, copy: Path) -> None:
    for text in ("\0\0", "abc", f"{'0' * 64}  ../../secret\n"):
        (copy / "SHA256SUMS").write_text(text)
        refused(call("explain", copy, "--text", "good"), f"{copy / 'SHA256SUMS'} is damaged")


class Evil:
    """What a pickle would do if it were read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    "part",
    [
        "module.safetensors",
        "module.json",
        "run.json",
        "config.yaml",
        "log.jsonl",
        "SHA256SUMS",
        "model/model.safetensors",
        "model/pytorch_model.bin",
        "model/config.json",
        "model/tokenizer.json",
        "model/tokenizer_config.json",
    ],
)
def test_a_pickle_is_never_read(call: Call, copy: Path, tmp_path: Path, part: str) -> None:
    trap = tmp_path / "trap"
    if part.endswith(".bin"):
        (copy / "model" / "model.safetensors").unlink()
    if part != "SHA256SUMS":
        (copy / "SHA256SUMS").unlink()
    (copy / part).write_bytes(pickle.dumps(Evil(trap)) + b"\n{}\n")
    refused(call("explain", copy, "--text", "good", "--html", tmp_path / "page.html"), str(copy))
    assert not trap.exists()
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("text", ["null", '"a"', "3", '{"model": {"type": "X"}}'])
@pytest.mark.parametrize(
    "part", ["config.json", "tokenizer.json", "tokenizer_config.json", "module.json"]
)
def test_a_file_that_holds_something_else(call: Call, copy: Path, part: str, text: str) -> None:
    place = copy / part if part == "module.json" else copy / "model" / part
    place.write_text(text)
    if part == "tokenizer_config.json" and text.startswith("{"):
        pytest.skip("all its keys may be left out")
    refused(call("explain", copy, "--text", "good"), str(copy))


@pytest.mark.parametrize("text", ["{}\n{}\n", "[]\n[]\n", "null\nnull\n", '{"terms": 3}\n{}\n'])
def test_a_log_that_holds_something_else(call: Call, copy: Path, tmp_path: Path, text: str) -> None:
    (copy / "log.jsonl").write_text(text)
    page = ("--html", tmp_path / "page.html")
    refused(call("explain", copy, "--text", "good", *page), f"{copy / 'log.jsonl'}:1: ")


def test_a_log_cut_off_by_a_kill_is_read(call: Call, copy: Path, tmp_path: Path) -> None:
    log = (copy / "log.jsonl").read_text()
    (copy / "log.jsonl").write_text(log[:-20])
    page = ("--html", tmp_path / "page.html")
    assert call("explain", copy, "--text", "good", *page).exit_code == 0


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_a_latest_run_that_was_moved(call: Call, tmp_path: Path, command: str) -> None:
    (tmp_path / "latest").symlink_to("first")
    text = ("--text", "good") if command == "explain" else ()
    refused(
        call(command, tmp_path / "latest", *text),
        f"no run at {tmp_path / 'latest'}: it points at first, which is not there any more",
    )


def test_training_mends_a_latest_that_dangles(call: Call, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("gone")
    assert call(*flags, "--output", tmp_path, "--name", "new").exit_code == 0
    assert load_run(tmp_path / "latest").name == "new"


def test_a_file_in_place_of_a_run(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refused(call("eval", tmp_path / "file"), f"{tmp_path / 'file'} is a file: expected a run")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_latest_that_is_no_link_is_not_replaced(
    call: Call, flags: list[str], tmp_path: Path, kind: str
) -> None:
    latest = tmp_path / "latest"
    latest.write_text("mine") if kind == "file" else latest.mkdir()
    refused(call(*flags, "--output", tmp_path, "--name", "new"), f"{latest} is no link to a run")
    assert os.listdir(tmp_path) == ["latest"]


@pytest.mark.parametrize("name", ["", ".", "..", "latest", "a/b", "/tmp/a", "../a", "a/"])
def test_names_of_runs_that_cannot_be(
    call: Call, flags: list[str], tmp_path: Path, name: str
) -> None:
    result = call(*flags, "--output", tmp_path / "runs", "--name", name)
    refused(result, f"a run cannot be called '{name}'")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["train", "eval", "explain"])
@pytest.mark.parametrize("device", ["meta", "nowhere"])
def test_devices_that_cannot_be_used(
    call: Call, flags: list[str], trained: Run, tmp_path: Path, command: str, device: str
) -> None:
    given = {
        "train": (*flags, "--output", tmp_path),
        "eval": ("eval", trained.path, "--json", tmp_path / "out"),
        "explain": ("explain", trained.path, "--text", "good", "--json", tmp_path / "out"),
    }
    refused(call(*given[command], "--device", device), f"cannot use the device '{device}'")
    assert os.listdir(tmp_path) == []


def test_a_text_that_is_not_utf8(call: Call, trained: Run) -> None:
    result = call("explain", trained.path, "--text", "caf\udce9")  # as a shell hands a lone E9 on
    refused(result, "text 1 is not valid Unicode")


@pytest.mark.parametrize("seed", ["-1", str(2**32), str(2**70)])
def test_seeds_that_no_generator_takes(call: Call, flags: list[str], seed: str) -> None:
    refused(call(*flags, f"--seed={seed}"), f"seed is {seed}: input should be ")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"criteria: suff\nseed: 1\ncriteria: comp\n", "y.yaml:3: the key 'criteria' stands twice"),
        (b"max_steps: true\n", "max_steps is True: expected no true or false"),
        ("criteria: suff\n".encode("utf-16"), "can't decode byte 0xff"),
        (b"criteria: suff\0\n", "y.yaml"),
    ],
)
def test_a_yaml_file_that_means_nothing_sure(
    call: Call, tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "y.yaml").write_bytes(content)
    refused(call("train", "--config", tmp_path / "y.yaml", "--output", tmp_path / "runs"), told)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flag", ["--config", "--model", "--data", "--name"])
def test_an_option_left_empty_is_not_taken_for_the_default(
    call: Call, flags: list[str], tmp_path: Path, flag: str
) -> None:
    refused(call(*flags, "--output", tmp_path / "runs", f"{flag}="))
    assert not (tmp_path / "runs").exists()
