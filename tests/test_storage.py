"""Writing is all or nothing."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from ivra.errors import IvraError
from ivra.storage import remove_temporary, write_json_atomic, write_text_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_byte_for_byte_and_replaces(tmp_path: Path):
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")
    write_text_atomic(str(path), "new \N{GRINNING FACE}\r\n")
    assert path.read_bytes() == "new \N{GRINNING FACE}\r\n".encode()
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of posix")
def test_new_files_honour_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_text_atomic(tmp_path / "a.txt", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="symbolic links of posix")
def test_a_link_is_followed(tmp_path: Path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text_atomic(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path, monkeypatch, step: str):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(
        IvraError, match=r"cannot write .*a\.txt: No space left on device\."
    ) as info:
        write_text_atomic(path, "new")
    assert "\n" not in str(info.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text_atomic(tmp_path / "a.txt", "new")
    assert names(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path):
    with pytest.raises(IvraError, match=r"No such file or directory\. Create the folder first\."):
        write_text_atomic(tmp_path / "missing" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IvraError, match="cannot write"):
        write_text_atomic(tmp_path / "folder", "x")
    with pytest.raises(IvraError, match="as UTF-8"):
        write_text_atomic(tmp_path / "a.txt", "\ud83d")
    assert names(tmp_path) == ["folder"]


def test_json_keeps_order_and_floats(tmp_path: Path):
    data = {"b": [0.1, 1e-300, 2.0], "a": {"x": None, "text": "\u05e9\u05dc\u05d5\u05dd"}}
    write_json_atomic(tmp_path / "a.json", data)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert text.index('"b"') < text.index('"a"')
    assert "0.1,\n" in text
    assert "\u05e9\u05dc\u05d5\u05dd" in text
    assert json.loads(text) == data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_has_no_nan(tmp_path: Path, value: float):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(IvraError, match=r"metrics\.comp\[1\] is -?(nan|inf), .* Write None"):
        write_json_atomic(path, {"metrics": {"comp": [1.0, value]}})
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_what_a_kill_left_of_a_text_is_removed_and_nothing_else(tmp_path: Path) -> None:
    others = [".tmp", ".notes.tmp", "run.json", ".0123456789abcdef.tmp.bak"]
    for name in [".0123456789abcdef.tmp", *others]:
        (tmp_path / name).write_text("{")
    remove_temporary(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
