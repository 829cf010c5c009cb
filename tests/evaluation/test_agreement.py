"""Plausibility against scikit-learn, and against ERASER's definitions written as sets of spans."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ivra.data import Item, Row
from ivra.evaluation import (
    Bootstrap,
    Units,
    average_precision,
    hard_rationales,
    marked_share,
    plausibility_figures,
    rankings,
    recall_at,
    roc_auc,
    spans,
    token_units,
    word_units,
)
from ivra.evaluation.agreement import TOKEN_KEYS, WORD_KEYS


@st.composite
def units(draw: st.DrawFn, least: int = 1) -> Units:
    """A row of one or two texts, with ties and any marks."""
    length = draw(st.integers(least, 14))
    scores = draw(st.lists(st.integers(-3, 3), min_size=length, max_size=length))
    marks = draw(st.lists(st.booleans(), min_size=length, max_size=length))
    second = draw(st.integers(0, length))
    return Units(
        np.array(scores, dtype=float) / 4,
        np.array(marks, dtype=bool),
        (np.arange(length) >= second).astype(np.int64),
    )


both_kinds = units(2).filter(lambda row: bool(row.marks.any()) and not bool(row.marks.all()))


@given(both_kinds)
def test_auc_and_average_precision_are_those_of_scikit_learn(row: Units) -> None:
    assert roc_auc(row) == pytest.approx(roc_auc_score(row.marks, row.scores), abs=1e-12)
    expected = average_precision_score(row.marks, row.scores)
    assert average_precision(row) == pytest.approx(expected, abs=1e-12)


@given(both_kinds, st.integers(1, 20))
def test_recall_counts_the_marks_among_the_highest(row: Units, k: int) -> None:
    places = sorted(range(len(row.scores)), key=lambda place: (-row.scores[place], place))
    hits = sum(bool(row.marks[place]) for place in places[:k])
    assert recall_at(row, k) == hits / sum(row.marks)
    assert recall_at(row, len(row.marks)) == 1.0


def f1(precision: float, recall: float) -> float:
    return 0.0 if precision == 0 or recall == 0 else 2 * precision * recall / (precision + recall)


def runs(chosen: list[bool], segment: list[int]) -> list[set[int]]:
    """Spans as sets of places, found by growing each from its left end."""
    found: list[set[int]] = []
    for place, yes in enumerate(chosen):
        if not yes:
            continue
        joined = place > 0 and chosen[place - 1] and segment[place] == segment[place - 1]
        if joined:
            found[-1].add(place)
        else:
            found.append({place})
    return found


def eraser(rows: list[Units], share: float) -> dict[str, float]:
    """Macro token F1, and macro IoU F1 at 0.5, as the benchmark's scorer defines them."""
    tokens, matched, sizes = [], [], defaultdict(list)
    for row in rows:
        order = sorted(range(len(row.scores)), key=lambda place: (-row.scores[place], place))
        top = set(order[: max(1, math.ceil(round(share * len(row.scores), 9)))])
        truth = {place for place, mark in enumerate(row.marks) if mark}
        precision, recall = len(top & truth) / len(top), len(top & truth) / len(truth)
        tokens.append(f1(precision, recall))
        segment = row.segment.tolist()
        predicted = runs([place in top for place in range(len(row.scores))], segment)
        marked = runs(row.marks.tolist(), segment)
        best = [max(len(p & m) / len(p | m) for m in marked) for p in predicted]
        matched.append(sum(iou >= 0.5 for iou in best))
        sizes["predicted"].append(len(predicted))
        sizes["marked"].append(len(marked))
    precision = sum(m / n for m, n in zip(matched, sizes["predicted"], strict=True)) / len(rows)
    recall = sum(m / n for m, n in zip(matched, sizes["marked"], strict=True)) / len(rows)
    return {"token_f1": sum(tokens) / len(tokens), "iou_f1": f1(precision, recall)}


@given(st.lists(units(), min_size=1, max_size=6))
def test_hard_rationales_are_scored_as_eraser_does(rows: list[Units]) -> None:
    counted = [row for row in rows if row.marks.any()]
    figures, intervals, reasons = plausibility_figures(rows, TOKEN_KEYS, (3,), Bootstrap(20, 0))
    if not counted:
        assert marked_share(rows) is None
        assert figures["token_f1"] is None
        assert figures["iou_f1"] is None
        assert reasons["iou_f1"] == "no row has a marked token"
        return
    share = marked_share(rows)
    assert share == pytest.approx(np.mean([row.marks.mean() for row in counted]))
    assert share is not None
    expected = eraser(counted, share)
    assert figures["token_f1"] == pytest.approx(expected["token_f1"], abs=1e-12)
    assert figures["iou_f1"] == pytest.approx(expected["iou_f1"], abs=1e-12)
    assert figures["rationale_rows"] == len(counted)
    assert ("iou_f1" in intervals) == (len(counted) > 1)
    if "iou_f1" in intervals:
        draws = np.random.default_rng(0).integers(0, len(counted), (20, len(counted)))
        resampled = [eraser([counted[i] for i in draw], share)["iou_f1"] for draw in draws]
        assert intervals["iou_f1"] == pytest.approx(np.percentile(resampled, [2.5, 97.5]))


@given(units())
def test_spans_cover_the_chosen_and_stay_in_one_text(row: Units) -> None:
    found = spans(row.marks, row.segment)
    assert [set(range(*span)) for span in found] == runs(row.marks.tolist(), row.segment.tolist())


def test_a_perfect_ranking_of_average_length_scores_one() -> None:
    marks = np.array([False, True, True, False])
    row = Units(marks.astype(float), marks, np.zeros(4, dtype=np.int64))
    figures, _, _ = plausibility_figures([row] * 3, TOKEN_KEYS, (1, 9), Bootstrap(9, 0))
    assert figures.pop("recall_at_1") == 0.5
    assert {figures.pop("plausibility_rows"), figures.pop("rationale_rows")} == {3}
    assert set(figures.values()) == {1.0}


def test_rankings_need_both_kinds_and_hard_rationales_a_mark() -> None:
    segment, scores = np.zeros(3, dtype=np.int64), np.array([3.0, 2.0, 1.0])
    none, some, every = (
        Units(scores, np.array(marks), segment)
        for marks in ([False] * 3, [True, False, False], [True] * 3)
    )
    assert len(rankings([none, some, every]).auc) == 1
    assert len(hard_rationales([none, some, every], 0.4).f1) == 2
    figures, intervals, reasons = plausibility_figures([none], WORD_KEYS, (), Bootstrap(9, 0))
    assert intervals == {}
    assert figures["word_auc"] is figures["word_f1"] is None
    assert reasons["word_auc"] == "no row has both marked and unmarked tokens"


def pieces() -> Item:
    """[CLS] un|fair film [SEP] ok blank ok|ay: two texts, words of several pieces."""
    explainable = [False, True, True, True, False, True, False, True, True]
    return Item(
        input_ids=[0] * 9,
        token_type_ids=[0] * 9,
        explainable=explainable,
        segment=[-1, 0, 0, 0, -1, 1, 1, 1, 1],
        word=[-1, 0, 0, 1, -1, 2, -1, 3, 3],
        offsets=[(0, 1)] * 9,
        label=0,
        rationale=[False, False, True, False, False, True, False, False, True],
        row=Row("x", ("unfair film", "ok okay")),
    )


def test_a_word_sums_its_pieces_and_is_marked_if_one_of_them_is() -> None:
    scores = torch.tensor([9.0, 0.5, 0.25, -1.0, 9.0, 2.0, 9.0, 0.125, 0.5])
    words = word_units(pieces(), scores)
    assert words is not None
    assert words.scores.tolist() == [0.75, -1.0, 2.0, 0.625]
    assert words.marks.tolist() == [True, False, True, True]
    assert words.segment.tolist() == [0, 0, 1, 1]
    assert spans(words.marks, words.segment) == [(0, 1), (2, 4)]
    tokens = token_units(pieces(), scores)
    assert tokens is not None
    assert tokens.scores.tolist() == [0.5, 0.25, -1.0, 2.0, 0.125, 0.5]
    assert tokens.marks.tolist() == [False, True, False, True, False, True]
    assert word_units(pieces()._replace(rationale=None), scores) is None


def test_words_of_one_token_are_the_tokens() -> None:
    item = pieces()._replace(word=[-1, 0, 1, 2, -1, 3, -1, 4, 5])
    scores = torch.linspace(-1, 1, 9)
    tokens, words = token_units(item, scores), word_units(item, scores)
    assert tokens is not None
    assert words is not None
    for left, right in zip(tokens, words, strict=True):
        assert left.tolist() == right.tolist()
