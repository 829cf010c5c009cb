"""Consistency against scipy's Spearman on distances taken pair by pair."""

import copy
import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Item
from ivra.evaluation import batch_correlations, consistency, mean_correlation, token_scores
from ivra.explainers import Explainer, ModuleExplainer, RandomScores
from ivra.losses.divergence import MIX

Vectors = list[np.ndarray]


def naive_states(backbone: Backbone, items: Sequence[Item]) -> Vectors:
    """Mean over the layers' outputs of each row alone, by transformers' own attention."""
    model = copy.deepcopy(backbone.model).eval()
    model.set_attn_implementation("eager")
    found = []
    for item in items:
        with torch.no_grad():
            output = model(input_ids=torch.tensor([item.input_ids]), output_hidden_states=True)
        found.append(torch.stack(output.hidden_states[1:]).mean(0)[0].double().numpy())
    return found


def naive_distance(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for place in range(max(len(a), len(b))):
        left = a[place] if place < len(a) else 0.0
        right = b[place] if place < len(b) else 0.0
        total += float(np.square(left - right).sum())
    return math.sqrt(total)


def naive_saliencies(explainer: Explainer, backbone: Backbone, items: Sequence[Item]) -> Vectors:
    """Points of the simplex, padded with zeros and mixed with a little of uniform."""
    length = max(len(item.input_ids) for item in items)
    support = np.zeros(length, dtype=bool)
    for item in items:
        support[: len(item.explainable)] |= np.array(item.explainable)
    found = []
    for item, scores in zip(items, token_scores(explainer, backbone, items), strict=True):
        values, yes = scores.double().numpy(), np.array(item.explainable)
        if not explainer.is_saliency:
            powers = np.where(yes, np.exp(values), 0.0)
            values = powers / powers.sum()
        padded = np.zeros(length)
        padded[: len(values)] = values
        found.append(((1 - MIX) * padded + MIX * support / support.sum())[support])
    return found


def naive_rho(explainer: Explainer, backbone: Backbone, items: Sequence[Item]) -> float:
    states = naive_states(backbone, items)
    saliencies = naive_saliencies(explainer, backbone, items)
    distances, divergences = [], []
    for i, j in combinations(range(len(items)), 2):
        distances.append(naive_distance(states[i], states[j]))
        p, q = saliencies[i], saliencies[j]
        divergences.append(float((p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()) / 2)
    return float(spearmanr(divergences, distances).statistic)


def explainers(backbone: Backbone) -> list[Explainer]:
    return [ModuleExplainer(InterpretableAttention(backbone.sizes).eval()), RandomScores()]


def test_one_batch_gives_the_rho_of_naive_distances(backbone: Backbone, items: list[Item]) -> None:
    both = explainers(backbone)
    found = consistency(backbone, items, both)
    assert found == pytest.approx({e.name: naive_rho(e, backbone, items) for e in both}, abs=1e-6)


def test_several_batches_give_the_mean_of_those_that_are_defined(
    electra: Backbone, items: list[Item]
) -> None:
    both = explainers(electra)
    found = consistency(electra, items[:5], both, batch_rows=3)  # the last two rows do not count
    assert found == pytest.approx({e.name: naive_rho(e, electra, items[:3]) for e in both})
    found = consistency(electra, items, both, batch_rows=3)
    halves = [items[:3], items[3:]]
    expected = {e.name: sum(naive_rho(e, electra, h) for h in halves) / 2 for e in both}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_fewer_than_three_rows_have_no_consistency(
    electra: Backbone, items: list[Item], rows: int
) -> None:
    found = consistency(electra, items[:rows], explainers(electra))
    assert found == {"ivra": None, "random": None}


def test_equal_rows_have_no_consistency(electra: Backbone, items: list[Item]) -> None:
    found = consistency(electra, [items[0]] * 4, explainers(electra))
    assert found == {"ivra": None, "random": None}


def test_every_batch_says_whether_it_counts(electra: Backbone, items: list[Item]) -> None:
    both = explainers(electra)
    found = batch_correlations(electra, [*items[:3], *[items[0]] * 3, items[4]], both, 3)
    for explainer in both:
        first, *others = found[explainer.name]
        assert first == pytest.approx(naive_rho(explainer, electra, items[:3]))
        assert others == [None, None]  # equal rows; a row alone
        assert mean_correlation([first, *others]) == first
    assert mean_correlation([]) is None
    assert mean_correlation([0.5, None, -0.25]) == 0.125
