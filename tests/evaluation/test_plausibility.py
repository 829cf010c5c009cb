"""AUC of a ranking against rationales, counted by hand."""

import itertools

import pytest
import torch
from torch import Tensor

from ivra.data import Item, Row
from ivra.evaluation import plausibility_auc


def row(explainable: list[bool], rationale: list[bool] | None) -> Item:
    n = len(explainable)
    zeros = [0] * n
    spans = [(0, 1)] * n
    return Item(zeros, zeros, explainable, zeros, zeros, spans, 0, rationale, Row("x", ("x",)))


def concordant(item: Item, scores: Tensor) -> float:
    """The share of pairs (marked, unmarked) that the scores put in order; a tie is half a pair."""
    assert item.rationale is not None
    triples = zip(item.explainable, item.rationale, scores.tolist(), strict=True)
    places = [(mark, score) for yes, mark, score in triples if yes]
    marked = [score for mark, score in places if mark]
    others = [score for mark, score in places if not mark]
    pairs = list(itertools.product(marked, others))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def test_the_figure_is_the_mean_share_of_concordant_pairs() -> None:
    generator = torch.Generator().manual_seed(1)
    items, scores = [], []
    for length in (4, 7, 12, 20):
        yes = [False, *[True] * (length - 2), False]
        marks = [False, True, *(torch.rand(length - 3, generator=generator) < 0.4).tolist(), False]
        marks[-2] = False
        items.append(row(yes, marks))
        scores.append(torch.randint(0, 5, (length,), generator=generator).float())
    expected = sum(map(concordant, items, scores)) / len(items)
    found, counted = plausibility_auc(items, scores)
    assert found == pytest.approx(expected, abs=1e-12)
    assert counted == 4


def test_a_perfect_ranking_is_one_a_reversed_one_zero_and_a_constant_one_half() -> None:
    item = row([True] * 4, [True, False, True, False])
    perfect = torch.tensor([3.0, 1.0, 2.0, 0.0])
    assert plausibility_auc([item], [perfect]) == (1.0, 1)
    assert plausibility_auc([item], [-perfect]) == (0.0, 1)
    assert plausibility_auc([item], [torch.ones(4)]) == (0.5, 1)


def test_special_tokens_do_not_count_whatever_their_score() -> None:
    item = row([False, True, True, False], [False, True, False, False])
    assert plausibility_auc([item], [torch.tensor([9.0, 2.0, 1.0, 9.0])]) == (1.0, 1)


@pytest.mark.parametrize(
    "rationale",
    [None, [False] * 4, [False, True, True, False]],
    ids=["nobody annotated", "nothing marked", "everything marked"],
)
def test_rows_without_both_kinds_of_tokens_are_left_out(rationale: list[bool] | None) -> None:
    item = row([False, True, True, False], rationale)
    scores = torch.tensor([0.0, 2.0, 1.0, 0.0])
    assert plausibility_auc([item], [scores]) == (None, 0)
    good = row([True, True], [True, False])
    assert plausibility_auc([item, good], [scores, torch.tensor([2.0, 1.0])]) == (1.0, 1)


def test_no_rows_have_no_auc() -> None:
    assert plausibility_auc([], []) == (None, 0)
