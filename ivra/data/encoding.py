"""Rows as token ids with a fast Hugging Face tokenizer, and items cut into batches."""

import random
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from ivra.data.batch import Batch, Item, Row, Span, collate
from ivra.errors import IvraError, unknown_name

NO_LABEL = -100
"""The label of a row without one; PyTorch's cross-entropy skips it."""

_WORD = re.compile(r"\S+")


class _Vocabulary(NamedTuple):
    """What the tokenizer says of ids, looked up once."""

    special: frozenset[int]
    typed: bool


class _Token(NamedTuple):
    """One token as seen from its row; offsets without the blanks that belong to no word."""

    segment: int
    offsets: Span
    explainable: bool
    word: int


def encode_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str] | None,
    max_length: int,
) -> list[Item]:
    """Tokenise ``rows`` in one batched call, in order; pairs lose tokens "longest first".

    ``explainable`` tokens are those that stand for visible text: neither special (added by the
    tokenizer, or typed into the text as in "[SEP]"; the unknown token does count as text) nor
    blank (GPT-2's and Llama's lone spaces and line breaks) nor part of an ERASER query
    (``row.docids`` is ``None`` there). ``word`` numbers the
    whitespace-delimited words of the row, over both texts, so that it means the same under
    every tokenizer and a reader can count along; "don't" is one word, punctuation belongs to
    the word it touches, and a script without blanks is one long word. Blank tokens have a
    segment but word -1. ``offsets`` point into the row's own texts and never begin or end on a
    blank, whatever the tokenizer does with leading spaces; special and blank tokens have
    ``(0, 0)`` or an empty span. A token is in the rationale if it is explainable and its
    offsets overlap a marked span by a character or more.

    ``label`` is the index in ``labels``; -100 for a row without label, or if ``labels`` is None.

    Raises :class:`IvraError` for a tokenizer without offsets, a ``max_length`` that leaves no
    room for text, an unknown label, rows of one text mixed with pairs, and a row of which no
    explainable token is left.
    """
    if not rows:
        return []
    _check_fast(tokenizer)
    _check_room(rows, tokenizer, max_length)
    encoded = tokenizer(
        [row.texts[0] for row in rows],
        [row.texts[1] for row in rows] if len(rows[0].texts) == 2 else None,
        truncation=True,
        max_length=max_length,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    vocabulary = _vocabulary(tokenizer)
    index = None if labels is None else {label: i for i, label in enumerate(labels)}
    encodings = encoded.encodings or []
    items = [
        _item(row, encoding, vocabulary, _label(row, index))
        for row, encoding in zip(rows, encodings, strict=True)
    ]
    for item in items:
        if not any(item.explainable):
            raise _nothing_left(item.row)
    return items


def encode_questions(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    doc_stride: int,
    explain_question: bool = False,
) -> list[Item]:
    """Tokenise questions and their contexts, as :func:`encode_rows` does; one item a window.

    A question is never cut. A context that does not fit beside it is cut into windows, of which
    neighbours share ``doc_stride`` tokens of the context; the windows of a row are neighbours in
    the result, in reading order. ``explainable`` are the tokens of the context, and those of the
    question only with ``explain_question``. ``answer`` spans the tokens that overlap the first of
    the row's answers; it is ``None`` in a window that does not hold all of it.

    Raises :class:`IvraError` as :func:`encode_rows` does, for a row that is no pair, and for a
    question that leaves no more than ``doc_stride`` tokens for the context.
    """
    if not rows:
        return []
    _check_fast(tokenizer)
    _check_questions(rows, tokenizer, max_length, doc_stride)
    encoded = tokenizer(
        [row.texts[0] for row in rows],
        [row.texts[1] for row in rows],
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    vocabulary = _vocabulary(tokenizer)
    protected = frozenset() if explain_question else frozenset({0})
    windows: list[list[Item]] = [[] for _ in rows]
    for place, encoding in zip(
        encoded["overflow_to_sample_mapping"], encoded.encodings or [], strict=True
    ):
        item = _item(rows[place], encoding, vocabulary, NO_LABEL, protected)
        windows[place].append(item._replace(answer=_answer_tokens(item)))
    return [item for row, found in zip(rows, windows, strict=True) for item in _legible(row, found)]


def _legible(row: Row, windows: list[Item]) -> list[Item]:
    """The windows that have a token of the context to explain."""
    found = [
        item
        for item in windows
        if any(e and s == 1 for e, s in zip(item.explainable, item.segment, strict=True))
    ]
    if not found:
        raise _nothing_left(row)
    return found


def _answer_tokens(item: Item) -> tuple[int, int] | None:
    """First and last token of the row's first answer, if the window holds all of it."""
    if not item.row.answers:
        return None
    text, start = item.row.answers[0]
    first, last = start + len(text) - len(text.lstrip()), start + len(text.rstrip())
    tokens = [
        place
        for place, (segment, (begin, end)) in enumerate(
            zip(item.segment, item.offsets, strict=True)
        )
        if segment == 1 and begin < min(end, last) and first < end
    ]
    if not tokens or item.offsets[tokens[0]][0] > first or item.offsets[tokens[-1]][1] < last:
        return None
    return tokens[0], tokens[-1]


def batches(
    items: Sequence[Item],
    batch_size: int,
    pad_id: int,
    padding_side: str,
    *,
    shuffle_seed: int | None = None,
    by_length: bool = False,
    most_tokens: int | None = None,
) -> Iterator[Batch]:
    """Every item once, ``batch_size`` at a time, the last batch possibly smaller.

    With ``most_tokens`` as many at a time as that allows, see :func:`cut`.
    The order is that of ``items``, or a permutation fixed by ``shuffle_seed``. ``by_length``
    puts rows of like length together (longest first, ties in the former order) so that little
    is padded; with ``shuffle_seed`` the batches themselves then come in shuffled order.
    A batch carries its items, so results can be put back in order by ``batch.items[i].row``.
    """
    if batch_size < 1:
        raise IvraError(f"the batch size must be at least 1, got {batch_size}.")
    if padding_side not in ("left", "right"):
        raise unknown_name("padding side", padding_side, ["left", "right"])
    rng = None if shuffle_seed is None else random.Random(shuffle_seed)
    order = list(range(len(items)))
    if rng is not None:
        rng.shuffle(order)
    if by_length:
        order.sort(key=lambda i: -len(items[i].input_ids))
    lengths = [len(items[i].input_ids) for i in order]
    groups = [order[place] for place in cut(lengths, batch_size, most_tokens)]
    if by_length and rng is not None:
        rng.shuffle(groups)
    return (collate([items[i] for i in group], pad_id, padding_side) for group in groups)


def cut(lengths: Sequence[int], batch_size: int, most_tokens: int | None = None) -> list[slice]:
    """Where rows of these lengths, in their order, are cut into batches.

    ``batch_size`` rows each, or with ``most_tokens`` as many as may follow until rows times the
    longest of them would be more; a row that is longer on its own is a batch on its own.
    """
    if most_tokens is None:
        return [slice(i, i + batch_size) for i in range(0, len(lengths), batch_size)]
    found, start, longest = [], 0, 0
    for place, length in enumerate(lengths):
        longest = max(longest, length)
        if place > start and (place + 1 - start) * longest > most_tokens:
            found.append(slice(start, place))
            start, longest = place, length
    return [*found, slice(start, len(lengths))] if lengths else []


def _check_fast(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.is_fast:
        raise IvraError(
            f"{type(tokenizer).__name__} gives no character offsets; load the fast version of "
            f"this tokenizer (use_fast=True, a folder with tokenizer.json)."
        )


def _check_questions(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int, doc_stride: int
) -> None:
    for row in rows:
        if len(row.texts) != 2:
            raise IvraError(
                f"{_place(row)}: expected a question and its context, got {_counted(row)}."
            )
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    questions = tokenizer([row.texts[0] for row in rows], add_special_tokens=False)["input_ids"]
    for row, question in zip(rows, questions, strict=True):
        if room - len(question) <= doc_stride:
            raise IvraError(
                f"{_place(row)}: the question has {len(question)} tokens, which leaves "
                f"{max(0, room - len(question))} of max_length {max_length} for the context: need "
                f"more than doc_stride, {doc_stride}; raise max_length, or lower doc_stride."
            )


def _check_room(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    texts = len(rows[0].texts)
    for row in rows:
        if len(row.texts) != texts:
            raise IvraError(
                f"{_place(row)}: this row has {_counted(row)} and the first row "
                f"({_place(rows[0])}) has {_counted(rows[0])}; put them into two files."
            )
    needed = tokenizer.num_special_tokens_to_add(pair=texts == 2) + texts
    if max_length < needed:
        raise IvraError(
            f"max_length is {max_length}, but special tokens and one token of each text need "
            f"{needed}; raise it."
        )


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> _Vocabulary:
    # The unknown token stands for text the user wrote, unless it is also, say, the end of text
    # as in GPT-2, whose byte-level tokens leave nothing unknown.
    roles = [
        role for role, name in tokenizer.special_tokens_map.items() if name == tokenizer.unk_token
    ]
    text = {tokenizer.unk_token_id} if roles == ["unk_token"] else set()
    ids = set(tokenizer.all_special_ids) - text
    return _Vocabulary(frozenset(ids), "token_type_ids" in tokenizer.model_input_names)


def _label(row: Row, index: dict[str, int] | None) -> int:
    if index is None or row.label is None:
        return NO_LABEL
    if row.label not in index:
        raise IvraError(f"{_place(row)}: {unknown_name('label', row.label, list(index))}")
    return index[row.label]


def _nothing_left(row: Row) -> IvraError:
    return IvraError(
        f"{_place(row)}: no token is left to explain after tokenisation (the text has only "
        f"characters that the tokenizer drops, or special tokens); remove the row."
    )


def _item(
    row: Row,
    encoding: Encoding,
    vocabulary: _Vocabulary,
    label: int,
    protected: frozenset[int] = frozenset(),
) -> Item:
    """``protected`` texts have no explainable token."""
    tokens = _tokens(row, encoding, vocabulary.special, protected)
    return Item(
        input_ids=encoding.ids,
        token_type_ids=encoding.type_ids if vocabulary.typed else [0] * len(tokens),
        explainable=[token.explainable for token in tokens],
        segment=[token.segment for token in tokens],
        word=[token.word for token in tokens],
        offsets=[token.offsets for token in tokens],
        label=label,
        rationale=_marks(row, tokens),
        row=row,
    )


def _tokens(
    row: Row, encoding: Encoding, special: frozenset[int], protected: frozenset[int]
) -> list[_Token]:
    starts = [[match.start() for match in _WORD.finditer(text)] for text in row.texts]
    first_word = [0, len(starts[0])]
    tokens = []
    for token_id, segment, (start, end) in zip(
        encoding.ids, encoding.sequence_ids, encoding.offsets, strict=True
    ):
        if segment is None or token_id in special:
            tokens.append(_Token(-1, (0, 0), False, -1))
            continue
        start, end = _trimmed(row.texts[segment], start, end)
        visible = start < end
        word = first_word[segment] + bisect_right(starts[segment], start) - 1 if visible else -1
        query = segment in protected or (bool(row.docids) and row.docids[segment] is None)
        tokens.append(_Token(segment, (start, end), visible and not query, word))
    return tokens


def _trimmed(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _marks(row: Row, tokens: list[_Token]) -> list[bool] | None:
    if row.rationale is None:
        return None
    return [
        token.explainable
        and any(
            start < token.offsets[1] and token.offsets[0] < end
            for start, end in row.rationale[token.segment]
        )
        for token in tokens
    ]


def _place(row: Row) -> str:
    return row.where or row.id


def _counted(row: Row) -> str:
    return "a pair of texts" if len(row.texts) == 2 else "one text"
