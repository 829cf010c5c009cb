"""The generated data set: fixed, balanced, exactly annotated, and no word list solves it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from ivra.data import Row, builtin_rows, builtin_tokenizer, encode_rows, fingerprint, label_names
from ivra.data.lexicon import NEGATIVE, NEGATORS, POSITIVE
from ivra.errors import IvraError

SPLITS = ("train", "dev", "test")
TOKENIZER = builtin_tokenizer()


def evidence(row: Row) -> list[str]:
    assert row.rationale is not None
    return [row.texts[0][start:end] for start, end in row.rationale[0]]


def opinions(row: Row) -> int:
    return sum(word in POSITIVE + NEGATIVE for word in row.texts[0].split())


@pytest.fixture(scope="module")
def everything() -> list[Row]:
    return [row for split in SPLITS for row in builtin_rows(split)]


def test_sizes_labels_and_balance() -> None:
    for split, size in zip(SPLITS, (2000, 400, 400), strict=True):
        rows = builtin_rows(split)
        assert len(rows) == size
        assert label_names(rows) == ["negative", "positive"]
        assert sum(row.label == "positive" for row in rows) == size / 2


def test_the_rows_are_the_same_on_every_machine() -> None:
    prints = [fingerprint(builtin_rows(split)) for split in SPLITS]
    assert [text[:8] for text in prints] == ["c0303aa1", "9c131548", "3f518608"]
    assert fingerprint(builtin_rows("dev", seed=1)) != prints[1]


def test_no_text_and_no_id_occurs_twice(everything: list[Row]) -> None:
    assert len({row.texts for row in everything}) == len(everything)
    assert len({row.id for row in everything}) == len(everything)


def test_the_rationale_is_the_sentiment_word_and_its_negator(everything: list[Row]) -> None:
    for row in everything:
        *negator, word = evidence(row)
        assert (word in POSITIVE) != (word in NEGATIVE)
        assert negator == [] or (len(negator) == 1 and negator[0] in NEGATORS)
        assert row.label == ("positive" if (word in POSITIVE) != bool(negator) else "negative")


def test_shares_of_negation_distraction_and_bare_evidence(everything: list[Row]) -> None:
    count = len(everything)
    assert 0.3 < sum(len(evidence(row)) == 2 for row in everything) / count < 0.4
    assert 0.45 < sum(opinions(row) > 1 for row in everything) / count < 0.55
    assert 0.2 < sum(len(row.texts[0].split()) <= 7 for row in everything) / count < 0.3
    assert max(len(row.texts[0].split()) for row in everything) <= 43


def test_the_deciding_opinion_comes_first_or_last(everything: list[Row]) -> None:
    first = []
    for row in everything:
        if opinions(row) > 1:
            assert row.rationale is not None
            before = row.texts[0][: row.rationale[0][-1][0]].split()
            first.append(not any(word in POSITIVE + NEGATIVE for word in before))
    assert 0.4 < sum(first) / len(first) < 0.6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_bag_of_words_does_not_solve_it(seed: int) -> None:
    train, test = builtin_rows("train", seed), builtin_rows("test", seed)
    counts = CountVectorizer(token_pattern=r"\S+")
    model = LogisticRegression(max_iter=1000)
    model.fit(counts.fit_transform(row.texts[0] for row in train), [row.label for row in train])
    found = counts.transform(row.texts[0] for row in test)
    assert model.score(found, [row.label for row in test]) <= 0.75


def test_an_unknown_split() -> None:
    with pytest.raises(IvraError, match=r"unknown split 'tset'\. Did you mean 'test'"):
        builtin_rows("tset")


def test_the_caller_may_change_the_list() -> None:
    builtin_rows("dev").clear()
    assert len(builtin_rows("dev")) == 400


def test_every_word_is_one_token_and_the_rationale_maps_exactly(everything: list[Row]) -> None:
    for item in encode_rows(everything, TOKENIZER, ["negative", "positive"], 128):
        assert TOKENIZER.unk_token_id not in item.input_ids
        assert len(item.input_ids) == len(item.row.texts[0].split()) + 2
        assert item.rationale is not None
        assert sum(item.rationale) == len(evidence(item.row))


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_any_ascii_text_is_spelled_without_the_unknown_token(text: str) -> None:
    text = re.sub(r"\[(PAD|UNK|CLS|SEP|MASK)\]", "", text)
    assert TOKENIZER.unk_token not in TOKENIZER.tokenize(text)


def test_exotic_characters_are_unknown_alone_and_long_words_are_not() -> None:
    assert TOKENIZER.tokenize("Good😀bad naïve") == [
        "good", "[UNK]", "bad", "n", "##a", "##i", "##v", "##e",
    ]  # fmt: skip
    assert "[UNK]" not in TOKENIZER.tokenize("x" * 5000)


def test_templates_of_single_texts_and_pairs() -> None:
    encoded = TOKENIZER("good", "bad")
    tokens = TOKENIZER.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "good", "[SEP]", "bad", "[SEP]"]
    assert encoded["token_type_ids"] == [0, 0, 0, 1, 1]
    assert TOKENIZER.pad_token_id == 0
    assert TOKENIZER.decode(TOKENIZER("Not good .")["input_ids"], skip_special_tokens=True) == (
        "not good ."
    )
