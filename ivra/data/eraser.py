"""ERASER directories as rows with rationales (DeYoung et al. 2020, ACL).

A directory holds ``train.jsonl``, ``val.jsonl`` and ``test.jsonl`` (one annotation a line) and
the documents, as a folder ``docs/`` (a file a document, named by its docid) or as ``docs.jsonl``
(``{"docid", "document"}`` a line). Evidences are spans ``[start_token, end_token)`` over a
document's *tokens*: its lines, stripped, cut at single spaces, counted through.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ivra.data.batch import Row, Span
from ivra.data.fields import Columns, row_from_record, shown
from ivra.errors import IvraError

FILES = {"train": "train.jsonl", "dev": "val.jsonl", "test": "test.jsonl"}
"""The file of each split."""

Record = tuple[str, dict[str, object]]
"""Where a record stands ("FILE:line") and its fields."""
Records = Callable[[Path], Iterator[Record]]
"""Reads a JSON Lines file."""

_PAIR = ("premise", "hypothesis")
_WORD = re.compile(r"\S+")


def document_tokens(row: Row) -> tuple[tuple[Span, ...], ...]:
    """Character spans of the whitespace tokens of each text, in order.

    Of ERASER rows exactly the tokens that the benchmark counts, an empty one (from two spaces,
    or a blank line, in ``docs.jsonl``) included as an empty span; of other rows the maximal runs
    of characters that are not white space.
    """
    return tuple(_tokens(text) if row.docids else _words(text) for text in row.texts)


def document_ids(row: Row) -> tuple[str | None, ...]:
    """The docid of each text, ``None`` for a query.

    Rows that are not ERASER's have their own id; of a pair "_premise" and "_hypothesis" are
    appended to it, as in ERASER's e-SNLI.
    """
    if row.docids:
        return row.docids
    return (row.id,) if len(row.texts) == 1 else tuple(f"{row.id}_{name}" for name in _PAIR)


def is_eraser(folder: Path, records: Records) -> bool:
    """Whether the first line of a split is an annotation.

    That is, it has an ``annotation_id``, and ``evidences`` or documents beside the file. If no
    split can be read, the documents alone decide.
    """
    documents = any(_documents_of(folder))
    for name in (*FILES.values(), "dev.jsonl"):
        if (folder / name).is_file():
            try:
                found = next(records(folder / name), None)
            except IvraError:
                continue
            if found is not None:
                return "annotation_id" in found[1] and (documents or "evidences" in found[1])
    return documents


def eraser_splits(folder: Path) -> list[str]:
    """The splits that ``folder`` has, of train, dev (``val.jsonl``) and test."""
    return [split for split, name in FILES.items() if (folder / name).is_file()]


def eraser_rows(folder: Path, split: str, records: Records) -> list[Row]:
    """The annotations of one split as rows: documents as texts, evidences as character spans.

    The documents of a row are ``<annotation_id>_premise`` and ``_hypothesis`` if both exist (as in
    e-SNLI), else those in ``docids``, else those that its evidences name, else the one named as
    its ``annotation_id``: one or two. The text of a document is its tokens with single spaces
    and line breaks. Where a row has one document, and the queries of the directory's first split
    differ, its ``query`` is the second text, protected (``docids`` is ``None`` there); where all
    rows have the same query, or two documents, it is left out.

    Raises:
        IvraError: documents twice or not at all, an unknown docid, an evidence that does not fit
            its document, a missing or malformed field; one line with file and line.
    """
    documents = _Documents(folder, records)
    ask = _queries_differ(folder, records)
    return [_row(record, where, documents, ask) for where, record in records(folder / FILES[split])]


class _Documents:
    """Canonical text (tokens, single spaces and line breaks) of each document, by docid."""

    def __init__(self, folder: Path, records: Records) -> None:
        has_folder, has_file = _documents_of(folder)
        if has_folder == has_file:
            raise IvraError(
                f"{folder}: expected the documents of an ERASER data set in a folder 'docs' or a "
                f"file 'docs.jsonl', found {'both; remove one' if has_file else 'neither'}."
            )
        self._folder = folder / "docs"
        self.place = str(folder / ("docs.jsonl" if has_file else "docs"))
        self._read: dict[str, str] = _from_file(folder / "docs.jsonl", records) if has_file else {}
        self._complete = has_file

    def __contains__(self, docid: str) -> bool:
        return docid in self._read or (not self._complete and self._path(docid) is not None)

    def text(self, docid: str, where: str) -> str:
        """The document, which must be there and hold a token."""
        if docid not in self._read:
            path = None if self._complete else self._path(docid)
            if path is None:
                raise IvraError(f"{where}: no document {shown(docid)} in {self.place}.")
            self._read[docid] = _from_lines(_decoded(path).split("\n"))
        if not self._read[docid].strip():
            raise IvraError(f"{where}: the document {shown(docid)} in {self.place} is empty.")
        return self._read[docid]

    def _path(self, docid: str) -> Path | None:
        inside = Path(docid)
        if not docid or inside.is_absolute() or ".." in inside.parts or "\0" in docid:
            return None
        path = self._folder / inside
        try:
            return path if path.is_file() else None
        except OSError:  # a name too long for the file system
            return None


def _documents_of(folder: Path) -> tuple[bool, bool]:
    return (folder / "docs").is_dir(), (folder / "docs.jsonl").is_file()


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise IvraError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise IvraError(
            f"{path}:{line}: expected UTF-8, got the byte 0x{error.object[error.start]:02x}; "
            f"save the file as UTF-8."
        ) from None


def _from_lines(lines: list[str]) -> str:
    """A file of ``docs/``: blank lines and repeated spaces are no tokens."""
    cut = ([piece for piece in line.strip().split(" ") if piece] for line in lines)
    return "\n".join(" ".join(tokens) for tokens in cut if tokens)


def _from_file(path: Path, records: Records) -> dict[str, str]:
    """``docs.jsonl``: a blank line and the place between two spaces are (empty) tokens."""
    found: dict[str, str] = {}
    for where, record in records(path):
        docid = _string(record, "docid", where)
        if docid in found:
            raise IvraError(f"{where}: the document {shown(docid)} stands already above.")
        lines = _string(record, "document", where).split("\n")
        found[docid] = "\n".join(line.strip() for line in lines)
    return found


def _queries_differ(folder: Path, records: Records) -> bool:
    path = folder / FILES[eraser_splits(folder)[0]]
    first: object = None
    for number, (_, record) in enumerate(records(path)):
        query = record.get("query")
        if number and query != first:
            return True
        first = query
    return False


def _row(record: Mapping[str, object], where: str, documents: _Documents, ask: bool) -> Row:
    name = _string(record, "annotation_id", where)
    label = _string(record, "classification", where)
    evidences = _evidences(record, where)
    docids: tuple[str | None, ...] = _docids(name, record, evidences, where, documents)
    texts = [documents.text(docid, where) for docid in docids if docid is not None]
    spans: list[list[Span]] = [[] for _ in texts]
    for evidence in evidences:
        place = _document_of(evidence, docids, where, documents)
        spans[place] += _marked(evidence, texts[place], where)
    if len(texts) == 1 and ask:
        texts.append(_string(record, "query", where))
        spans.append([])
        docids = (*docids, None)
    fields: dict[str, object] = {"id": name, "label": label}
    if len(texts) == 1:
        fields |= {"text": texts[0], "rationale": spans[0]}
    else:
        fields |= dict(zip(_PAIR, texts, strict=True))
        fields["rationale"] = dict(zip(_PAIR, spans, strict=True))
    return replace(row_from_record(fields, where, Columns()), docids=docids)


def _string(record: Mapping[str, object], field: str, where: str) -> str:
    if field not in record:
        raise IvraError(
            f"{where}: expected a field '{field}'; the fields are: {', '.join(record) or 'none'}."
        )
    value = record[field]
    if not isinstance(value, str) or not value.strip():
        raise IvraError(
            f"{where}: expected '{field}' to be a string with text, got {shown(value)}."
        )
    return value


def _evidences(record: Mapping[str, object], where: str) -> list[Mapping[str, object]]:
    """The evidences of all groups, flat, each with a docid."""
    groups = record.get("evidences")
    if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
        raise IvraError(
            f"{where}: expected 'evidences' to be a list of lists of evidences, "
            f"got {shown(groups)}."
        )
    flat = [evidence for group in groups for evidence in group]
    for evidence in flat:
        if not isinstance(evidence, Mapping):
            raise IvraError(
                f"{where}: expected each evidence to be an object with 'docid', 'start_token' and "
                f"'end_token', got {shown(evidence)}."
            )
        _string(evidence, "docid", where)
    return flat


def _docids(
    name: str,
    record: Mapping[str, object],
    evidences: list[Mapping[str, object]],
    where: str,
    documents: _Documents,
) -> tuple[str, ...]:
    """The row's documents, see :func:`eraser_rows`."""
    pair = tuple(f"{name}_{part}" for part in _PAIR)
    if all(docid in documents for docid in pair):
        return pair
    listed = record.get("docids")
    if listed is not None and (
        not isinstance(listed, list) or not all(isinstance(docid, str) for docid in listed)
    ):
        raise IvraError(f"{where}: expected 'docids' to be a list of strings, got {shown(listed)}.")
    named = tuple(dict.fromkeys(listed or sorted(str(e["docid"]) for e in evidences))) or (name,)
    if len(named) > 2:
        raise IvraError(
            f"{where}: expected one or two documents, got {len(named)} "
            f"({shown(', '.join(named))}); a model reads a text or a pair."
        )
    return named


def _document_of(
    evidence: Mapping[str, object],
    docids: tuple[str | None, ...],
    where: str,
    documents: _Documents,
) -> int:
    docid = str(evidence["docid"])
    if docid not in docids:
        if docid not in documents:
            raise IvraError(f"{where}: no document {shown(docid)} in {documents.place}.")
        raise IvraError(
            f"{where}: an evidence names the document {shown(docid)}, but the row's documents are "
            f"{', '.join(shown(name) for name in docids)}."
        )
    return docids.index(docid)


def _marked(evidence: Mapping[str, object], text: str, where: str) -> list[Span]:
    """The evidence in characters; nothing if all its tokens are empty."""
    for field in ("start_token", "end_token"):
        value = evidence.get(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise IvraError(
                f"{where}: expected '{field}' of an evidence to be a whole number, "
                f"got {shown(value)}."
            )
    start, end = int(str(evidence["start_token"])), int(str(evidence["end_token"]))
    tokens = _tokens(text)
    if not 0 <= start < end <= len(tokens):
        raise IvraError(
            f"{where}: evidence [{start}, {end}] does not fit the document "
            f"{shown(evidence['docid'])}, which has {len(tokens)} tokens; need "
            f"0 <= start_token < end_token <= {len(tokens)}."
        )
    seen = [span for span in tokens[start:end] if span[0] < span[1]]
    return [(seen[0][0], seen[-1][1])] if seen else []


def _tokens(text: str) -> tuple[Span, ...]:
    spans, start = [], 0
    for piece in re.split("[ \n]", text):
        spans.append((start, start + len(piece)))
        start += len(piece) + 1
    return tuple(spans)


def _words(text: str) -> tuple[Span, ...]:
    return tuple(match.span() for match in _WORD.finditer(text))
