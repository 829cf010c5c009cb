"""A small run on a few of the built-in rows, and the commands called on it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ivra.cli.main import main
from ivra.data import read_rows
from ivra.training import Run, TrainConfig, train

torch.set_num_threads(1)

QUICK = {
    "criteria": "suff",
    "max_length": 48,
    "batch_size": 16,
    "finetune_epochs": 1.0,
    "max_steps": 2,
    "validations": 1,
    "validation_rows": 32,
}
"""What makes a training run take a second."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the built-in rows, as files, with their rationales."""
    made = tmp_path_factory.mktemp("reviews")
    for part, count in (("train", 64), ("dev", 32), ("test", 16)):
        rows = [
            {"text": row.texts[0], "label": row.label, "rationale": (row.rationale or ((),))[0]}
            for row in read_rows("builtin", part)[:count]
        ]
        lines = [json.dumps(row) + "\n" for row in rows]
        (made / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that the commands are called on; tests leave its own files as they are."""
    config = TrainConfig(data=str(folder), **QUICK)
    return train(config, output=tmp_path_factory.mktemp("runs"), name="first")


@pytest.fixture
def flags(folder: Path) -> list[str]:
    """``ivra train`` with all that makes it quick."""
    given = [f"--{key.replace('_', '-')}={value}" for key, value in QUICK.items()]
    return ["train", f"--data={folder}", *given]


@pytest.fixture
def call() -> Callable[..., Result]:
    """``ivra ARGUMENTS`` in this process; standard output and error apart."""
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every file under a folder as it stands on disk."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.is_symlink()
        }

    return read
