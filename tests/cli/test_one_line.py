"""Outputs that would overwrite each other, and memory that runs out: one line, exit code 2."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from ivra.training import Run

Call = Callable[..., Result]


def refused(result: Result, *pieces: str) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for piece in pieces:
        assert piece in result.stderr


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        (["explain", "--text=good"], ("--html", "--json")),
        (["eval", "--accuracy"], ("--json", "--html")),
        (["eval", "--accuracy"], ("--html", "--export-eraser")),
    ],
)
def test_two_outputs_in_one_file(
    call: Call, trained: Run, tmp_path: Path, arguments: list[str], flags: tuple[str, str]
) -> None:
    command, *rest = arguments
    first, second = (f"{tmp_path}/out", f"{tmp_path}/../{tmp_path.name}/out")
    result = call(command, trained.path, *rest, flags[0], first, flags[1], second)
    refused(result, flags[0], flags[1], "expected two files")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
    ],
)
def test_memory_that_runs_out(
    call: Call, trained: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ivra.cli.explain.explain", fail)
    refused(call("explain", trained.path, "--text", "good"), "out of memory", "--batch-size")


def test_another_error_of_pytorchs_keeps_its_traceback(
    call: Call, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ivra.cli.explain.explain", fail)
    assert isinstance(call("explain", trained.path, "--text", "good").exception, RuntimeError)
