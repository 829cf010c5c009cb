"""Rows from JSON Lines, CSV and TSV files, folders of splits, the hub, or the built-in set."""

import codecs
import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ivra.data.batch import Row
from ivra.data.builtin import builtin_rows
from ivra.data.eraser import eraser_rows, eraser_splits, is_eraser
from ivra.data.fields import Columns, row_from_record, shown
from ivra.data.hub import hub_records
from ivra.errors import IvraError, unknown_name

SPLITS = ("train", "dev", "test")

Record = tuple[str, dict[str, object]]
"""Where a record stands ("FILE:line") and its fields."""


def read_rows(
    source: str | Path,
    split: str | None = None,
    *,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
) -> list[Row]:
    """Every row of ``source``, checked; never an empty list.

    ``source`` is one of

    * a ``.jsonl`` file: ``{"text", "label", "rationale": [[start, end], ...]}`` or
      ``{"premise", "hypothesis", "label", "rationale": {"premise": [...], ...}}`` or
      ``{"question", "context", "answers": [{"text", "start"}, ...]}``, one object a line; ``id``,
      ``label``, ``rationale`` and ``answers`` may be left out;
    * a ``.csv`` or ``.tsv`` file with a header line (fields quoted as Excel does; a column
      ``rationale`` holds the spans as JSON);
    * a directory holding ``{train,dev,test}.jsonl``, of which ``split`` picks one;
    * an ERASER directory (:mod:`ivra.data.eraser`), likewise by ``split``; "dev" there means
      ``val.jsonl``, and its columns are fixed;
    * ``"builtin"``, the generated data set (:mod:`ivra.data.builtin`), likewise by ``split``;
    * else the name of a Hugging Face data set, "name" or "name:config", likewise by ``split``;
      "dev" there means "validation". Its columns ``id`` and ``rationale`` are not read.

    ``text_column``, ``pair_column`` and ``label_column`` name columns of any of these.
    Files are UTF-8, with or without a byte order mark. A ``split`` of a single file is an error,
    so that nobody evaluates on the training data unawares.

    Raises :class:`IvraError`, one line with file and line, for every malformed input.
    """
    columns = Columns(text_column, pair_column, label_column)
    if source == "builtin":
        if any(vars(columns).values()):
            raise IvraError("the built-in data set has fixed columns; leave the column flags out.")
        return builtin_rows(_known_split("builtin", split, SPLITS))
    if not str(source).strip():
        raise IvraError("no data named: expected a file, a folder, a hub data set or 'builtin'.")
    folder = Path(source).expanduser()
    if folder.is_dir() and is_eraser(folder, _jsonl):
        if any(vars(columns).values()):
            raise IvraError(f"{source}: ERASER data has fixed columns; leave the column flags out.")
        return _eraser(folder, str(source), split)
    rows: list[Row] = []
    labelled = False
    fields: list[str] = []
    for where, record in _records(str(source), split):
        rows.append(row_from_record(record, where, columns))
        labelled = labelled or label_column is None or label_column in record
        fields = fields or list(record)
    if not rows:
        raise IvraError(f"{source}: no rows in it; expected at least one.")
    if label_column is not None and not labelled:
        raise IvraError(f"{source}: {unknown_name('column', label_column, fields)}")
    return _distinct(rows)


def label_names(rows: Iterable[Row]) -> list[str]:
    """The labels of ``rows``, each once, sorted as strings; rows without a label are skipped."""
    return sorted({row.label for row in rows if row.label is not None})


def fingerprint(rows: Iterable[Row]) -> str:
    """SHA-256 (hex) of texts, labels, rationales and answers in order; ids and file names do not
    count."""
    digest = hashlib.sha256()
    for row in rows:
        parts: list[object] = [row.texts, row.label, row.rationale]
        if row.answers is not None:
            parts.append(row.answers)
        content = json.dumps(parts, ensure_ascii=True)
        digest.update(content.encode("ascii") + b"\n")
    return digest.hexdigest()


def _eraser(folder: Path, source: str, split: str | None) -> list[Row]:
    found = eraser_splits(folder)
    if not found:
        raise IvraError(
            f"{source}: expected ERASER data to have train.jsonl, val.jsonl or test.jsonl, found "
            f"none of them."
        )
    rows = eraser_rows(folder, _known_split(source, split, found), _jsonl)
    if not rows:
        raise IvraError(f"{source}: no rows in its split '{split}'; expected at least one.")
    return _distinct(rows)


def _records(source: str, split: str | None) -> Iterator[Record]:
    path = Path(source).expanduser()
    if path.is_dir():
        found = [name for name in SPLITS if (path / f"{name}.jsonl").is_file()]
        if not found:
            raise IvraError(
                f"{source}: expected a directory holding train.jsonl, dev.jsonl or test.jsonl, "
                f"found none of them."
            )
        yield from _jsonl(path / f"{_known_split(source, split, found)}.jsonl")
    elif path.is_file():
        yield from _file_records(path, split)
    elif path.exists():
        raise IvraError(f"{source}: no regular file or folder; expected one of the two.")
    elif path.suffix.lower() in PARSERS or source.startswith((".", "/", "~")):
        raise IvraError(f"{source}: no such file or directory.")
    else:
        yield from hub_records(source, split)


def _file_records(path: Path, split: str | None) -> Iterator[Record]:
    parse = PARSERS.get(path.suffix.lower())
    if parse is None:
        raise IvraError(
            f"{path}: cannot read files ending in '{path.suffix}'; expected one of "
            f"{', '.join(PARSERS)}."
        )
    if split is not None:
        raise IvraError(
            f"{path}: a single file has no split '{split}'; leave the split out, or give a "
            f"directory holding train.jsonl, dev.jsonl and test.jsonl."
        )
    yield from parse(path)


def _known_split(source: str, split: str | None, found: Sequence[str]) -> str:
    if split is None:
        raise IvraError(f"which split of '{source}'? Choose from: {', '.join(found)}.")
    if split in SPLITS and split not in found:
        raise IvraError(
            f"{source}: no split '{split}' in it, only {', '.join(found)}; "
            f"add it, or name other rows (--eval-data when training, --split or --data after)."
        )
    if split not in found:
        raise IvraError(f"{source}: {unknown_name('split', split, list(found))}")
    return split


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise IvraError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        text = data.decode("utf-8")
        place = text.find("\0")
        if place < 0:
            return text
        line, found = text.count("\n", 0, place) + 1, "a NUL byte, as UTF-16 and damaged files have"
    except UnicodeDecodeError as error:
        line, found = data.count(b"\n", 0, error.start) + 1, f"the byte 0x{data[error.start]:02x}"
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            found += ", with which UTF-16 begins"
    raise IvraError(f"{path}:{line}: expected UTF-8, got {found}; save the file as UTF-8.")


def _jsonl(path: Path) -> Iterator[Record]:
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a string.
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _json_object(line, where)


def _json_object(line: str, where: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise IvraError(
            f"{where}: expected one JSON object a line, got bad JSON at column {error.colno}: "
            f"{error.msg}."
        ) from None
    except (ValueError, RecursionError) as error:  # a number of 5000 digits, 5000 brackets
        raise IvraError(f"{where}: cannot read this JSON: {error}.") from None
    if not isinstance(value, dict):
        raise IvraError(f"{where}: expected a JSON object {{...}}, got {shown(value)}.")
    return value


def _table(path: Path, delimiter: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{path}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            hint = "write a quote inside a field twice, and quote the whole field."
            if "field limit" in str(error):
                hint = "put texts as long as this into JSON Lines, or close the quote."
            raise IvraError(f"{where}: bad quoting: {error}; {hint}") from None
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _header(cells, where)
        elif len(cells) != len(header):
            raise IvraError(
                f"{where}: expected {len(header)} columns ({', '.join(header)}), got "
                f"{len(cells)}; quote fields that hold the separator or a line break."
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def _header(cells: list[str], where: str) -> list[str]:
    for name in cells:
        if cells.count(name) > 1:
            raise IvraError(f"{where}: the column '{name}' stands twice in the header.")
    return cells


def _csv(path: Path) -> Iterator[Record]:
    return _table(path, ",")


def _tsv(path: Path) -> Iterator[Record]:
    return _table(path, "\t")


def _distinct(rows: list[Row]) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        if row.id in first:
            raise IvraError(
                f"{row.where}: the id '{row.id}' stands already at {first[row.id].where}; ids "
                f"must differ, or be left out."
            )
        first[row.id] = row
    return rows


PARSERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _jsonl,
    ".json-lines": _jsonl,
    ".jsonlines": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
}
