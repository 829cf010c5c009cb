"""Questions and their contexts: answers as read, windows, and what of them may be explained."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest

from ivra.data import (
    NOWHERE,
    Answer,
    Item,
    Row,
    builtin_tokenizer,
    collate,
    encode_questions,
    encode_rows,
    fingerprint,
    read_rows,
)
from ivra.errors import IvraError

TOKENIZER = builtin_tokenizer()
QUESTION = "the dull plot ?"
CONTEXT = "we liked the music . the plot was dull , and the film was never funny at all ."
ANSWER = Answer("the plot", CONTEXT.index("the plot"))


def row(*answers: Answer, question: str = QUESTION, context: str = CONTEXT) -> Row:
    return Row("r", (question, context), where="f:1", answers=answers)


def text_of(item: Item) -> str:
    """The context's characters from the first to the last token of the answer."""
    assert item.answer is not None
    first, last = item.answer
    return item.row.texts[1][item.offsets[first][0] : item.offsets[last][1]]


@pytest.mark.parametrize(
    "answers",
    [
        [{"text": "the plot", "start": ANSWER.start}],
        [{"text": "the plot", "answer_start": ANSWER.start}],
        {"text": ["the plot"], "answer_start": [ANSWER.start]},
        [{"text": "the plot", "start": ANSWER.start}, {"text": "the plot", "start": ANSWER.start}],
    ],
)
def test_answers_are_read_as_squad_writes_them(tmp_path: Path, answers: object) -> None:
    record = {"id": "r", "question": QUESTION, "context": CONTEXT, "answers": answers}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record))
    (found,) = read_rows(path)
    assert found == Row("r", (QUESTION, CONTEXT), where=f"{path}:1", answers=(ANSWER,))


def test_answers_of_nobody_and_none_differ(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "a", "context": "b"}, {"question": "a", "context": "b", "answers": []}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = read_rows(path)
    assert [row.answers for row in found] == [None, ()]


def test_a_column_of_answers_elsewhere_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a", "label": "x", "answers": "many"}))
    assert read_rows(path)[0].answers is None


def test_answers_count_in_the_fingerprint_and_their_absence_does_not() -> None:
    bare = Row("r", (QUESTION, CONTEXT))
    known = {fingerprint([bare]), fingerprint([row()]), fingerprint([row(ANSWER)])}
    assert len(known) == 3
    content = json.dumps([bare.texts, None, None])
    assert fingerprint([bare]) == hashlib.sha256(f"{content}\n".encode()).hexdigest()


def test_a_short_context_is_one_window_like_any_pair() -> None:
    (item,) = encode_questions([row(ANSWER)], TOKENIZER, 64, 8)
    (pair,) = encode_rows([row()], TOKENIZER, None, 64)
    assert (item.input_ids, item.token_type_ids) == (pair.input_ids, pair.token_type_ids)
    assert (item.segment, item.word, item.offsets) == (pair.segment, pair.word, pair.offsets)
    assert text_of(item) == "the plot"


@pytest.mark.parametrize("asked", [False, True])
def test_the_question_is_explainable_only_where_asked(asked: bool) -> None:
    (item,) = encode_questions([row(ANSWER)], TOKENIZER, 64, 8, explain_question=asked)
    wanted = {0, 1} if asked else {1}
    assert item.explainable == [segment in wanted for segment in item.segment]


@pytest.mark.parametrize("stride", [0, 1, 4, 7])
def test_windows_cover_the_context_and_share_the_stride(stride: int) -> None:
    (whole,) = encode_questions([row()], TOKENIZER, 64, 8)
    tokens = [offsets for offsets, s in zip(whole.offsets, whole.segment, strict=True) if s == 1]
    items = encode_questions([row(ANSWER)], TOKENIZER, 16, stride)
    assert len(items) > 1
    places = []
    for item in items:
        assert len(item.input_ids) <= 16
        assert item.input_ids[:6] == whole.input_ids[:6]
        own = [offsets for offsets, s in zip(item.offsets, item.segment, strict=True) if s == 1]
        first = tokens.index(own[0])
        assert own == tokens[first : first + len(own)]
        places.append((first, first + len(own)))
    assert (places[0][0], places[-1][1]) == (0, len(tokens))
    assert all(before[1] - after[0] == stride for before, after in pairwise(places))
    span = (tokens.index((21, 24)), tokens.index((25, 29)))
    for item, (begin, end) in zip(items, places, strict=True):
        assert (item.answer is not None) == (begin <= span[0] and span[1] < end)
        assert item.answer is None or text_of(item) == "the plot"


def test_an_answer_within_a_word_takes_the_tokens_it_touches() -> None:
    context = "so unbelievable ."  # spelled by character, for no such word is known
    (item,) = encode_questions([row(Answer("believ", 5), context=context)], TOKENIZER, 64, 8)
    assert text_of(item) == "believ"
    (item,) = encode_questions([row(Answer("ull", 6), context="it is dull .")], TOKENIZER, 64, 8)
    assert text_of(item) == "dull"


def test_places_of_answers_move_with_the_padding() -> None:
    rows = [row(ANSWER), row(question="who ?", context="funny film ."), row(Answer("we", 0))]
    items = encode_questions(rows, TOKENIZER, 64, 8)
    for side in ("left", "right"):
        batch = collate(items, 0, side)
        assert batch.answers[1].tolist() == [NOWHERE, NOWHERE]
        for place, item in ((0, items[0]), (2, items[2])):
            first, last = batch.answers[place].tolist()
            assert item.answer is not None
            begin, end = item.answer
            assert (
                batch.input_ids[place, first : last + 1].tolist() == item.input_ids[begin : end + 1]
            )


@pytest.mark.parametrize(
    ("rows", "length", "stride", "words"),
    [
        ([Row("r", ("only",), where="f:1")], 64, 8, "^f:1: expected a question and its context"),
        ([row()], 15, 8, "^f:1: the question has 4 tokens, which leaves 8 of max_length 15"),
        ([row()], 6, 0, "^f:1: the question has 4 tokens, which leaves 0 of max_length 6"),
        ([row(context="[SEP] [SEP]")], 64, 8, "^f:1: no token is left to explain"),
    ],
)
def test_bad_questions_are_one_line(rows: list[Row], length: int, stride: int, words: str) -> None:
    with pytest.raises(IvraError, match=words):
        encode_questions(rows, TOKENIZER, length, stride)
