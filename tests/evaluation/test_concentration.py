"""Entropy and support against scipy and a count by hand, on rows that hypothesis draws."""

import math

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from ivra.attention import NORMALISERS
from ivra.evaluation import normalised_entropy, saliency_entropy, support_size


@st.composite
def rows(draw: st.DrawFn) -> list[list[float]]:
    """Weights of each row's explainable tokens, some of them 0."""
    weight = st.one_of(st.just(0.0), st.floats(1e-3, 10))
    row = st.lists(weight, min_size=1, max_size=12).filter(lambda weights: sum(weights) > 0)
    return draw(st.lists(row, min_size=1, max_size=4))


def padded(weights: list[list[float]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(map(len, weights)) + 1
    saliency = torch.zeros(len(weights), length, dtype=torch.float64)
    explainable = torch.zeros(len(weights), length, dtype=torch.bool)
    for place, row in enumerate(weights):
        where = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        values = torch.tensor(row, dtype=torch.float64)
        saliency[place, where] = values / values.sum()
        explainable[place, where] = True
    return saliency, explainable


@given(rows(), st.sampled_from(["left", "right"]))
def test_entropy_is_scipys_and_support_is_counted(weights: list[list[float]], side: str) -> None:
    saliency, explainable = padded(weights, side)
    entropy = saliency_entropy(saliency, explainable).tolist()
    share = normalised_entropy(saliency, explainable).tolist()
    assert entropy == pytest.approx([scipy.stats.entropy(row) for row in weights], abs=1e-12)
    assert support_size(saliency, explainable).tolist() == [
        sum(weight > 0 for weight in row) for row in weights
    ]
    for row, nats, part in zip(weights, entropy, share, strict=True):
        assert 0 <= nats <= math.log(len(row)) + 1e-12
        if len(row) == 1:
            assert math.isnan(part)
        else:
            assert 0 <= part <= 1
            assert part == pytest.approx(scipy.stats.entropy(row, base=len(row)), abs=1e-12)


def test_a_uniform_saliency_has_all_and_a_point_none() -> None:
    explainable = torch.tensor([[True] * 4 + [False]] * 2)
    saliency = torch.tensor([[0.25] * 4 + [0.0], [0.0, 1.0, 0.0, 0.0, 0.0]])
    assert saliency_entropy(saliency, explainable).tolist() == pytest.approx([math.log(4), 0.0])
    assert normalised_entropy(saliency, explainable).tolist() == pytest.approx([1.0, 0.0])
    assert support_size(saliency, explainable).tolist() == [4.0, 1.0]


def test_sparse_normalisers_have_a_smaller_support() -> None:
    logits = torch.tensor([[3.0, 2.9, 0.0, -1.0]])
    everywhere = torch.ones_like(logits, dtype=torch.bool)
    found = {
        name: support_size(normaliser(logits, everywhere), everywhere).item()
        for name, normaliser in NORMALISERS.items()
    }
    assert found["softmax"] == 4
    assert found["sparsemax"] == 2


def test_what_stands_on_other_tokens_does_not_count() -> None:
    saliency = torch.tensor([[0.5, 0.5, 0.3]])
    explainable = torch.tensor([[True, True, False]])
    assert saliency_entropy(saliency, explainable).item() == pytest.approx(math.log(2))
    assert support_size(saliency, explainable).item() == 2
