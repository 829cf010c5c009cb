"""Writing files so that a reader finds the old one or the new one, never half of either."""

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ivra.errors import IvraError, first_line

LOCK = ".lock"
TEMPORARY = ".tmp"
STAGED, READY, REPLACED = ".new", ".next", ".old"
"""Folders that :func:`replace_together` works in; none of them is left when it is done."""


def write_text_atomic(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, replacing what was there in one step.

    The text goes to a temporary file in the same folder, is flushed to the disk and then
    renamed; line ends are written as they are, a symbolic link is followed. Whatever goes wrong
    (no such folder, no permission, a full disk, an interrupt), ``path`` is as it was before and
    the temporary file is gone. File system errors and text that UTF-8 cannot hold (unpaired
    surrogates) become an :class:`IvraError` of one line. What is no regular file (a pipe, a
    device such as /dev/stdout) is written to as it stands, never replaced.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    try:
        content = text.encode("utf-8")
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as special:
                special.write(content)
            return
        # os.open, unlike the tempfile module, honours the user's umask.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except UnicodeEncodeError as error:
        raise IvraError(f"cannot write {path} as UTF-8: {error.reason}.") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        hint = " Create the folder first." if isinstance(error, FileNotFoundError) else ""
        raise IvraError(f"cannot write {path}: {reason}.{hint}") from error


def remove_temporary(folder: Path) -> None:
    """Remove what a kill inside :func:`write_text_atomic` left in ``folder``.

    For one writer at a time: another one's file would be taken away.
    """
    for path in folder.glob(f".*{TEMPORARY}"):
        if re.fullmatch(rf"\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}", path.name):
            path.unlink(missing_ok=True)


def write_json_atomic(path: str | Path, data: object) -> None:
    """Write ``data`` as JSON to ``path``, as :func:`write_text_atomic` does.

    Keys keep their order, floats are the shortest text that reads back as the same float, and
    the file ends in a newline. NaN and infinities, which JSON does not have, are an
    :class:`IvraError` that names the place; write ``None`` for an undefined value.
    """
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        place = _not_finite(data, "")
        if place is None:
            raise
        raise IvraError(
            f"cannot write {path}: {place}, which JSON does not have. "
            "Write None for an undefined value."
        ) from error
    write_text_atomic(path, text + "\n")


@contextmanager
def replace_together(folder: Path) -> Iterator[Path]:
    """Replace several files and folders of ``folder`` in one step, for one writer at a time.

    What is written into the folder that the ``with`` statement gives is flushed to the disk and
    renamed in whole to ``.next``. From that moment it is what :func:`current` finds; then part
    after part moves to its place. Whenever the process is killed, ``current`` finds all the old
    parts or all the new ones, without writing anything, and the next call finishes the work. An
    error or an interrupt inside the statement leaves the old parts.
    """
    staged = folder / STAGED
    try:
        _move_in(folder)
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        yield staged
        for path in (p for p in staged.rglob("*") if p.is_file()):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        staged.rename(folder / READY)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    _move_in(folder)


def current(folder: Path, name: str) -> Path:
    """Where the part ``name`` of ``folder`` stands, be it in the middle of being replaced."""
    ready = folder / READY / name
    return ready if ready.exists() else folder / name


def remove_whole(folder: Path, name: str) -> None:
    """Remove the part ``name`` of ``folder``, and what a kill left of :func:`replace_together`.

    A kill at any moment leaves the part whole, or nothing of it in its place.
    """
    _move_in(folder)
    if (folder / name).is_dir():
        (folder / name).rename(folder / REPLACED)
        _move_in(folder)
    shutil.rmtree(folder / STAGED, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other processes; a process that ends lets go, however it ends.

    Raises:
        IvraError: another process holds it, or nothing can be written there.
    """
    path = folder / LOCK
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise IvraError(
            f"another process is at work in {folder}: wait until it is done, or end it"
        ) from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise IvraError(f"cannot write to {folder}: {reason}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def _move_in(folder: Path) -> None:
    """Move the parts that are ready to their places; can be interrupted and called again."""
    ready, replaced = folder / READY, folder / REPLACED
    if ready.is_dir():
        for part in list(ready.iterdir()):
            place = folder / part.name
            if place.is_dir():  # a folder cannot be renamed onto another one
                shutil.rmtree(replaced, ignore_errors=True)
                place.rename(replaced)
            part.replace(place)
        ready.rmdir()
    shutil.rmtree(replaced, ignore_errors=True)


def _not_finite(data: object, place: str) -> str | None:
    """Where in nested dicts, lists and tuples the first NaN or infinity is, and which it is."""
    if isinstance(data, float) and not math.isfinite(data):
        return f"{place.lstrip('.') or 'the value'} is {data}"
    items: list[tuple[str, object]] = []
    if isinstance(data, dict):
        items = [(f"{place}.{key}", value) for key, value in data.items()]
    elif isinstance(data, list | tuple):
        items = [(f"{place}[{index}]", value) for index, value in enumerate(data)]
    return next((found for where, v in items if (found := _not_finite(v, where))), None)
