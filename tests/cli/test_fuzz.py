"""Files broken in a thousand ways: exit code 0, or 2 and one line, and nothing is touched."""

import importlib.util
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result

from ivra.training import Run

Call = Callable[..., Result]
Contents = Callable[[Path], dict[str, bytes]]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


mutation = _load("mutation")


def arguments(path: Path, draw: random.Random, trained: Run, folder: Path, output: Path) -> list:
    """A command that reads the file."""
    quick = ["--max-steps=1", "--validations=1", "--finetune=never", "--max-length=32"]
    quick += ["--criteria=suff", f"--output={output}", "--name=made"]
    if path.suffix == ".yaml":
        return ["train", f"--config={path}", f"--data={folder}", "--model=tiny-electra", *quick]
    column = draw.choice(["", "", "", "--text-column=text", "--label-column=label"])
    command = draw.choice(["train", "explain", "explain", "eval"])
    if command == "train":
        return ["train", f"--data={path}", *quick, *filter(None, [column])]
    split = [f"--split={draw.choice(['train', 'dev', 'test'])}"] if draw.random() < 0.4 else []
    if command == "explain":
        page = ["--html", output / "page.html"] if draw.random() < 0.3 else []
        return ["explain", trained.path, "--data", path, "--rows", "4", *split, *page]
    measures = draw.choice([["--accuracy"], ["--plausibility"], ["--entropy", "--accuracy"]])
    made = ["--json", output / "figures.json", "--resamples", "0", "--explainers", "random"]
    return ["eval", trained.path, "--data", path, "--rows", "4", *measures, *split, *made]


def check(
    number: int,
    place: Path,
    call: Call,
    trained: Run,
    folder: Path,
    contents: Contents,
    large: bool,
) -> int:
    """One broken file, one command; its exit code."""
    draw = random.Random(number)
    given, output = place / "given", place / "output"
    given.mkdir()
    output.mkdir()
    path = mutation.lay_out(given, draw)
    done = mutation.mutate(path, draw, large)
    before = contents(given)
    command = arguments(path, draw, trained, folder, output)
    result = call(*command)
    told = f"case {number}: {done}: ivra {' '.join(map(str, command))}\n{result.output[-2000:]}"
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        told,
        result.exc_info,
    )
    assert result.exit_code in (0, 2), told
    assert "Traceback" not in result.output, told
    if result.exit_code == 2:
        (line,) = result.stderr.splitlines() or [""]
        assert line.startswith("ivra: "), told
        assert os.listdir(output) == [], told
    assert contents(given) == before, told
    shutil.rmtree(place)
    return result.exit_code


def run(
    numbers: range,
    tmp_path: Path,
    call: Call,
    trained: Run,
    folder: Path,
    contents: Contents,
    large: bool = False,
) -> dict[int, int]:
    """All of them; how often each exit code came."""
    earlier, rows = contents(trained.path), contents(folder)
    codes: dict[int, int] = {}
    for number in numbers:
        (tmp_path / str(number)).mkdir()
        code = check(number, tmp_path / str(number), call, trained, folder, contents, large)
        codes[code] = codes.get(code, 0) + 1
    assert contents(trained.path) == earlier
    assert contents(folder) == rows
    assert os.readlink(trained.path.parent / "latest") == "first"
    return codes


def test_broken_files_are_one_line_or_read(
    tmp_path: Path, call: Call, trained: Run, folder: Path, contents: Contents
) -> None:
    codes = run(range(60), tmp_path, call, trained, folder, contents)
    assert min(codes.get(0, 0), codes.get(2, 0)) >= 10, "both outcomes are tried"


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(1, 11))
def test_a_thousand_broken_files_are_one_line_or_read(
    tmp_path: Path, call: Call, trained: Run, folder: Path, contents: Contents, hundred: int
) -> None:
    numbers = range(100 * hundred, 100 * hundred + 100)
    codes = run(numbers, tmp_path, call, trained, folder, contents, large=True)
    assert min(codes.get(0, 0), codes.get(2, 0)) >= 10
