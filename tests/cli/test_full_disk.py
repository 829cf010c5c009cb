"""Disks that are really full, files that may not grow, folders that cannot be written to."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result

from ivra.training import Run, load_run

Call = Callable[..., Result]
Contents = Callable[[Path], dict[str, bytes]]
DISK = 12 << 20
"""Bytes of the small file system."""


def one_line(result: Result, *pieces: str) -> None:
    """The result is one line that holds ``pieces``, and exit code 2."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = result.stderr.splitlines()
    for piece in pieces:
        assert piece in line


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)  # weights may still be mapped


@pytest.fixture
def runs(disk: Path, trained: Run) -> Path:
    """A folder of runs on it, with an earlier run that is the latest."""
    shutil.copytree(trained.path, disk / "runs" / "first")
    (disk / "runs" / "latest").symlink_to("first")
    return disk / "runs"


def leave(disk: Path, free: int) -> None:
    """Fill the disk up to ``free`` bytes."""
    state = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(b"x" * max(0, state.f_bavail * state.f_frsize - free))


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


PAGE = 4096
FREE = [0, 1, 2, 3, 60, 145, 150, 156, 160, 170, 300, 320, 450, 600, 1200, 2600]
"""Pages left: the disk is full at the configuration, the log, the model, its tokenizer, the
module, a checkpoint, the record or a later save; the weights of the model need 139."""


@pytest.mark.parametrize("trains", ["module", "both"])
def test_training_on_a_full_disk(
    call: Call,
    flags: list[str],
    runs: Path,
    disk: Path,
    contents: Contents,
    trained: Run,
    trains: str,
) -> None:
    before = contents(runs / "first")
    outcomes = set()
    model = ("--finetune=never", "--model", trained.path / "model", "--max-steps=1")
    for pages in FREE:
        leave(disk, pages * PAGE)
        made = ("--output", runs, "--name", "new", "--train", trains)
        result = call(*flags, *model, *made)
        assert contents(runs / "first") == before
        new = runs / "new"
        if result.exit_code == 0:
            outcomes.add("done")
            assert os.readlink(runs / "latest") == "new"
            load_run(runs / "latest")
            (runs / "latest").unlink()
            (runs / "latest").symlink_to("first")
        else:
            one_line(result, "No space left on device")
            assert os.readlink(runs / "latest") == "first"
            outcomes.add("some weights" if new.exists() else "nothing")
            if new.exists():
                assert load_run(new).record == {}
                assert not list(new.rglob(".*"))
        assert sorted(os.listdir(disk)) == ["filler", "runs"]
        assert set(os.listdir(runs)) - {"new"} == {"first", "latest"}
        (disk / "filler").unlink()
        if result.exit_code and new.exists():
            assert call("train", "--resume", new).exit_code == 0
            (runs / "latest").unlink()
            (runs / "latest").symlink_to("first")
        shutil.rmtree(new, ignore_errors=True)
    assert outcomes == {"nothing", "some weights", "done"}


@pytest.mark.parametrize("old", [None, "earlier"])
@pytest.mark.parametrize(
    ("command", "flag"), [("eval", "--json"), ("explain", "--json"), ("explain", "--html")]
)
def test_results_on_a_full_disk(
    call: Call, trained: Run, disk: Path, command: str, flag: str, old: str | None
) -> None:
    target = disk / "out"
    if old is not None:
        target.write_text(old)
    leave(disk, 0)
    rows = ("--accuracy", "--rows", "4") if command == "eval" else ("--text", "not good .")
    result = call(command, trained.path, *rows, flag, target)
    one_line(result, f"cannot write {target}: No space left on device")
    assert (target.read_text() if old is not None else None) == old
    assert set(os.listdir(disk)) == {"filler"} | ({"out"} if old is not None else set())


def test_figures_of_a_run_on_a_full_disk(
    call: Call, runs: Path, disk: Path, contents: Contents
) -> None:
    before = contents(runs)
    leave(disk, 0)
    result = call("eval", runs / "latest", "--accuracy", "--rows", "4")
    one_line(result, "No space left on device")
    assert contents(runs) == before


@pytest.mark.parametrize("size", [100, 2000, 5000, 100_000])
def test_training_where_files_may_not_grow(
    call: Call, flags: list[str], trained: Run, tmp_path: Path, size: int
) -> None:
    """Needs no rights: the configuration, the log, the tokenizer or the weights are too long."""
    model = ("--finetune=never", "--model", trained.path / "model", "--max-steps=1")
    with files_of_at_most(size):
        result = call(*flags, *model, "--output", tmp_path, "--name", "new")
    one_line(result, "File too large")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "flag"), [("eval", "--json"), ("explain", "--json"), ("explain", "--html")]
)
def test_results_where_files_may_not_grow(
    call: Call, trained: Run, tmp_path: Path, command: str, flag: str
) -> None:
    rows = ("--accuracy", "--rows", "4") if command == "eval" else ("--text", "not good .")
    with files_of_at_most(100):
        result = call(command, trained.path, *rows, flag, tmp_path / "out")
    one_line(result, f"cannot write {tmp_path / 'out'}: File too large")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def read_only(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that can be read alone; the superuser needs a file system for that."""
    if os.geteuid():
        place = tmp_path / "read-only"
        place.mkdir(0o555)
        yield place
        place.chmod(0o755)
        return
    place = request.getfixturevalue("disk")
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    yield place


def test_a_folder_that_can_only_be_read(
    call: Call, flags: list[str], trained: Run, read_only: Path
) -> None:
    result = call(*flags, "--output", read_only, "--name", "new")
    one_line(result, f"cannot make the run folder {read_only / 'new'}: ")
    for command, rows, flag in (
        ("eval", ("--accuracy", "--rows", "4"), "--json"),
        ("explain", ("--text", "good"), "--json"),
        ("explain", ("--text", "good"), "--html"),
    ):
        result = call(command, trained.path, *rows, flag, read_only / "out")
        one_line(result, f"cannot write {read_only / 'out'}: ")
    assert os.listdir(read_only) == []


def test_a_run_that_can_only_be_read(call: Call, runs: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert call("explain", runs / "latest", "--text", "good").exit_code == 0
    result = call("eval", runs / "latest", "--accuracy", "--rows", "4")
    one_line(result, "cannot write", "eval-test.json: Read-only file system")
