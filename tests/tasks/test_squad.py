"""Exact match and F1 against a transcription of the official script of SQuAD 1.1."""

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivra.tasks import answer_f1, exact_match, normalised_answer


def official_normalise(s: str) -> str:
    def remove_articles(text: str) -> str:
        return re.sub(r"\b(a|an|the)\b", " ", text)

    def white_space_fix(text: str) -> str:
        return " ".join(text.split())

    def remove_punc(text: str) -> str:
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return white_space_fix(remove_articles(remove_punc(s.lower())))


def official_f1(prediction: str, ground_truth: str) -> float:
    prediction_tokens = official_normalise(prediction).split()
    ground_truth_tokens = official_normalise(ground_truth).split()
    common = Counter(prediction_tokens) & Counter(ground_truth_tokens)
    num_same = sum(common.values())
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(prediction_tokens)
    recall = 1.0 * num_same / len(ground_truth_tokens)
    return (2 * precision * recall) / (precision + recall)


pieces = st.sampled_from(
    ["The", "a", "an", "Nile", "nile.", "(Nile)", "10,000", "thea", "\u00e9t\u00e9", "-", " "]
)
texts = st.lists(pieces, max_size=6).map(" ".join)


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_figures_are_those_of_the_official_script(prediction: str, answers: list[str]) -> None:
    assert normalised_answer(prediction) == official_normalise(prediction)
    best = max(official_normalise(prediction) == official_normalise(a) for a in answers)
    assert exact_match(prediction, answers) == best
    expected = max(official_f1(prediction, answer) for answer in answers)
    assert answer_f1(prediction, answers) == pytest.approx(expected, abs=1e-12)


def test_worked_figures() -> None:
    assert exact_match("the Denver Broncos.", ["Carolina", "Denver  Broncos"])
    assert not exact_match("Denver", ["Denver Broncos"])
    assert answer_f1("in Denver", ["Carolina", "Denver Broncos"]) == 0.5
    assert answer_f1("the", ["the"]) == 0.0
    assert answer_f1("any", []) == 0.0
    assert not exact_match("any", [])
