"""One record of any format (a JSON object, a CSV line, a hub row) as a checked :class:`Row`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ivra.data.batch import Answer, Row, Span
from ivra.errors import IvraError, unknown_name

TEXT_FIELDS: tuple[tuple[str, ...], ...] = (
    ("text",),
    ("premise", "hypothesis"),
    ("sentence",),
    ("sentence1", "sentence2"),
    ("question", "context"),
)
"""The names under which texts are looked for when the caller names no column, in this order."""
QUESTION = TEXT_FIELDS[-1]


@dataclass(frozen=True)
class Columns:
    """The columns a caller named; ``None`` leaves the choice to :data:`TEXT_FIELDS`."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


def row_from_record(record: Mapping[str, object], where: str, columns: Columns) -> Row:
    """Check ``record`` and make a :class:`Row` of it.

    A ``label``, ``id`` or ``rationale`` that is missing, null or an empty string means "none";
    a default ``id`` is ``where``. Labels may be strings, whole numbers or booleans and become
    strings. A question and its context may have ``answers``, as ``[{"text", "start"}, ...]`` or as
    SQuAD has them (``answer_start``; lists of both).
    Raises :class:`IvraError` (one line, beginning with ``where``) for anything else.
    """
    names = _text_names(record, where, columns)
    texts = tuple(_text(record[name], name, where) for name in names)
    return Row(
        id=_scalar(record.get("id"), "id", where) or where,
        texts=texts,
        label=_scalar(record.get(columns.label or "label"), columns.label or "label", where),
        rationale=_rationale(record.get("rationale"), names, texts, where),
        where=where,
        answers=_answers(record.get("answers"), texts[1], where) if names == QUESTION else None,
    )


def _text_names(record: Mapping[str, object], where: str, columns: Columns) -> tuple[str, ...]:
    fields = list(record)
    if columns.text or columns.pair:
        named = (columns.text or "text", columns.pair)
        names = tuple(name for name in named if name is not None)
        for name in names:
            if name not in record:
                raise IvraError(f"{where}: {unknown_name('column', name, fields)}")
        return names
    for names in TEXT_FIELDS:
        if all(name in record for name in names):
            return names
    raise IvraError(
        f"{where}: expected a field 'text', or 'premise' and 'hypothesis', or 'question' and "
        f"'context'; the fields are: {', '.join(fields) or 'none'}. Rename one, or name it with "
        f"text_column and pair_column."
    )


def _text(value: object, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise IvraError(f"{where}: expected '{name}' to be a string, got {shown(value)}.")
    if not value.strip():
        raise IvraError(f"{where}: '{name}' is empty; fill it in or remove the row.")
    return _unicode(value, name, where)


def _scalar(value: object, name: str, where: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int)):
        raise IvraError(
            f"{where}: expected '{name}' to be a string, a whole number or true/false, "
            f"got {shown(value)}."
        )
    return _unicode(str(value), name, where)


def _unicode(value: str, name: str, where: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise IvraError(
            f"{where}: '{name}' has half of a surrogate pair at character {error.start}, which "
            f"is not valid Unicode; remove it or write the whole character."
        ) from None
    return value


def _rationale(
    value: object, names: Sequence[str], texts: Sequence[str], where: str
) -> tuple[tuple[Span, ...], ...] | None:
    if isinstance(value, str):  # a CSV cell
        value = _parse_cell(value, "rationale", "[start, end] pairs", where)
    if value is None:
        return None
    if len(names) == 1:
        return (_spans(value, names[0], texts[0], where),)
    if not isinstance(value, Mapping) or set(value) != set(names):
        raise IvraError(
            f"{where}: expected 'rationale' to be an object with a list of spans for each of "
            f"{', '.join(repr(name) for name in names)}, got {shown(value)}."
        )
    return tuple(
        _spans(value[name], name, text, where) for name, text in zip(names, texts, strict=True)
    )


def _parse_cell(value: str, name: str, parts: str, where: str) -> object:
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise IvraError(
            f"{where}: expected '{name}' to be a list of {parts}, "
            f"got {shown(value)}; rename the column if it means something else."
        ) from None


def _spans(value: object, name: str, text: str, where: str) -> tuple[Span, ...]:
    if not isinstance(value, (list, tuple)):
        raise IvraError(
            f"{where}: expected the rationale of '{name}' to be a list of [start, end] pairs, "
            f"got {shown(value)}."
        )
    return tuple(sorted({_span(pair, name, text, where) for pair in value}))


def _span(pair: object, name: str, text: str, where: str) -> Span:
    if (
        not isinstance(pair, (list, tuple))
        or len(pair) != 2
        or any(isinstance(end, bool) or not isinstance(end, int) for end in pair)
    ):
        raise IvraError(
            f"{where}: expected each rationale span of '{name}' to be a pair of whole numbers "
            f"[start, end], got {shown(pair)}."
        )
    start, end = pair
    if not 0 <= start < end <= len(text):
        raise IvraError(
            f"{where}: rationale span [{start}, {end}] does not fit '{name}', which has "
            f"{len(text)} characters; need 0 <= start < end <= {len(text)}."
        )
    return (start, end)


def _answers(value: object, context: str, where: str) -> tuple[Answer, ...] | None:
    parts = 'objects {"text", "start"}'
    if isinstance(value, str):  # a CSV cell
        value = _parse_cell(value, "answers", parts, where)
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = _by_answer(value)
    if not isinstance(value, (list, tuple)):
        raise IvraError(f"{where}: expected 'answers' to be a list of {parts}, got {shown(value)}.")
    return tuple(dict.fromkeys(_answer(answer, context, where) for answer in value))


def _by_answer(columns: Mapping[object, object]) -> object:
    """Answers as the hub's SQuAD has them, a list of texts and one of places, as a list of both."""
    texts, starts = columns.get("text"), columns.get("answer_start", columns.get("start"))
    if not isinstance(texts, (list, tuple)) or not isinstance(starts, (list, tuple)):
        return columns
    if len(texts) != len(starts):
        return columns
    return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


def _answer(value: object, context: str, where: str) -> Answer:
    found = value if isinstance(value, Mapping) else {}
    text, start = found.get("text"), found.get("start", found.get("answer_start"))
    if not isinstance(text, str) or isinstance(start, bool) or not isinstance(start, int):
        raise IvraError(
            f"{where}: expected each answer to be an object with a string 'text' and a whole "
            f"number 'start', got {shown(value)}."
        )
    if not text.strip():
        raise IvraError(f"{where}: the text of an answer is empty; remove the answer.")
    there = context[start : start + len(text)] if start >= 0 else ""
    if there != text:
        raise IvraError(
            f"{where}: the answer {shown(text)} does not stand at its start {start} of 'context', "
            f"where {shown(there)} is; count Unicode code points from 0."
        )
    return Answer(text, start)


def shown(value: object) -> str:
    """``value`` as a short piece of one line for an error message."""
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
