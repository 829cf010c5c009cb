"""Packing by length: every row once, within the budget, and the same numbers as row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ivra.backbones import Backbone
from ivra.data import Item, Row, collate
from ivra.evaluation import packed, predict, token_scores
from ivra.explainers import RandomScores, UntrainedExplainer


def bare(length: int) -> Item:
    one = [0] * length
    return Item(one, one, [True] * length, one, one, [(0, 1)] * length, 0, None, Row("x", ("x",)))


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 100))
def test_packing_holds_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = list(packed([bare(length) for length in lengths], budget))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= budget
    flat = [lengths[index] for group in groups for index in group]
    assert flat == sorted(lengths, reverse=True)


@pytest.mark.parametrize("budget", [1, 20, 60, 4096])
def test_predictions_are_those_of_each_row_alone(
    backbone: Backbone, items: list[Item], budget: int
) -> None:
    with torch.no_grad():
        alone = [backbone.encode(collate([item], backbone.pad_id)).logits for item in items]
    found = predict(backbone, items, budget)
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_no_rows_have_no_predictions(electra: Backbone) -> None:
    assert predict(electra, []).shape == (0, 2)


@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_scores_come_back_without_padding_in_the_order_of_the_rows(
    backbone: Backbone, items: list[Item], budget: int
) -> None:
    for explainer in (UntrainedExplainer(), RandomScores()):
        found = token_scores(explainer, backbone, items, budget)
        for item, scores in zip(items, found, strict=True):
            alone = explainer.explain(backbone, collate([item], backbone.pad_id))[0]
            torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-4)
