"""Several files and folders replaced in one step, whatever cuts it off."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ivra.storage import current, replace_together

PARTS = ("model", "module.json", "module.safetensors")
"""A folder of two files, and two files."""


def write(folder: Path, content: str) -> None:
    with replace_together(folder) as staged:
        (staged / "model").mkdir()
        for name in ("config.json", f"only-in-{content}.txt"):
            (staged / "model" / name).write_text(content)
        for name in PARTS[1:]:
            (staged / name).write_text(content)


def found(folder: Path) -> set[str]:
    """What a reader finds in all parts together."""
    texts = {current(folder, name).read_text() for name in PARTS[1:]}
    model = current(folder, "model")
    texts |= {path.read_text() for path in model.iterdir()}
    assert len(list(model.iterdir())) == 2
    return texts


def test_parts_are_replaced_whole_and_nothing_is_left_over(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("stays")
    for content in ("a", "b"):
        write(tmp_path, content)
        assert found(tmp_path) == {content}
        assert sorted(os.listdir(tmp_path)) == sorted([*PARTS, "other.txt"])
        assert (tmp_path / "model" / f"only-in-{content}.txt").is_file()
    with replace_together(tmp_path) as staged:
        (staged / "module.json").write_text("c")
    assert (tmp_path / "module.json").read_text() == "c"
    assert (tmp_path / "module.safetensors").read_text() == "b"


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt(), ValueError("x")])
def test_an_error_inside_leaves_the_old_parts(tmp_path: Path, error: BaseException) -> None:
    write(tmp_path, "old")

    def fail() -> None:
        with replace_together(tmp_path) as staged:
            (staged / "module.json").write_text("new")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert found(tmp_path) == {"old"}
    assert sorted(os.listdir(tmp_path)) == sorted(PARTS)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_replace_together import found, write

folder, left = Path({folder!r}), None

def count(event, arguments):
    global left
    if left is not None and event.startswith(("os.", "open", "shutil.")):
        left -= 1
        if left < 0:
            os._exit(9)

sys.addaudithook(count)
write(folder, "old")
for moment in range(1000):
    child = os.fork()
    if child == 0:
        left = moment
        write(folder, "new")
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(moment, status, *sorted(found(folder)), flush=True)
    if status == 0:
        break
    write(folder, "old")
    assert sorted(os.listdir(folder)) == sorted({parts!r}), os.listdir(folder)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_all_old_or_all_new(tmp_path: Path) -> None:
    """The process dies before each of its file system calls in turn, and the next one mends it."""
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path), parts=PARTS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == ["9"] * (len(lines) - 1) + ["0"]
    outcomes = [line[2:] for line in lines]
    turn = outcomes.index(["new"])
    assert outcomes == [["old"]] * turn + [["new"]] * (len(lines) - turn)
    assert turn > 10  # writing and flushing
    assert len(lines) - turn > 5  # part after part moves to its place


@pytest.mark.parametrize("call", ["rename", "replace", "rmdir", "mkdir"])
def test_an_interrupt_at_any_step_can_be_followed_by_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real: Callable[..., object] = getattr(Path, call)
    for moment in range(5):
        write(tmp_path, "old")
        left = moment

        def interrupt(self: Path, *rest: object) -> object:
            nonlocal left
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
            return real(self, *rest)

        monkeypatch.setattr(Path, call, interrupt)
        try:
            write(tmp_path, "new")
        except KeyboardInterrupt:
            assert found(tmp_path) in ({"old"}, {"new"})
            write(tmp_path, "new")
        assert found(tmp_path) == {"new"}
        assert sorted(os.listdir(tmp_path)) == sorted(PARTS)
        monkeypatch.undo()
