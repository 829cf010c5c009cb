"""The cut at k percent against exact fractions, and what it is differentiated as."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ivra.errors import IvraError
from ivra.losses import TOPK_GRADIENTS, soft_top_k, top_k

PERCENTS = ["1", "5", "10", "20", "30", "33.3", "50", "70", "90", "100", "0.1"]


def wanted(count: int, percent: str) -> int:
    """``max(1, ceil(percent% of count))`` in exact arithmetic, at most ``count``."""
    return min(count, max(1, math.ceil(Fraction(percent) * count / 100)))


def naive_cut(scores: list[float], explainable: list[bool], percent: str) -> list[bool]:
    allowed = [place for place, flag in enumerate(explainable) if flag]
    ranked = sorted(allowed, key=lambda place: (-scores[place], place))
    chosen = set(ranked[: wanted(len(allowed), percent)])
    return [place in chosen for place in range(len(scores))]


@st.composite
def scored_rows(draw: st.DrawFn) -> tuple[list[list[float]], list[list[bool]]]:
    """Few different scores, so that ties are many."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 25))
    score = st.sampled_from([0.0, 0.0, 0.1, 0.25, 0.5, -1.0, 3.0])
    scores = draw(
        st.lists(st.lists(score, min_size=length, max_size=length), min_size=rows, max_size=rows)
    )
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    return scores, draw(st.lists(flags, min_size=rows, max_size=rows))


@given(rows=scored_rows(), percent=st.sampled_from(PERCENTS))
@settings(max_examples=150, deadline=None)
def test_the_cut_is_the_naive_one_with_ties_to_the_earlier_token(
    rows: tuple[list[list[float]], list[list[bool]]], percent: str
) -> None:
    scores, explainable = rows
    found = top_k(torch.tensor(scores), torch.tensor(explainable), float(percent))
    expected = [naive_cut(s, e, percent) for s, e in zip(scores, explainable, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize("percent", PERCENTS)
def test_the_number_of_tokens_is_exact_for_every_count(percent: str) -> None:
    explainable = torch.ones(600, 600, dtype=torch.bool).tril()
    counts = top_k(torch.zeros(600, 600), explainable, float(percent)).sum(-1)
    assert counts.tolist() == [wanted(count, percent) for count in range(1, 601)]


def test_a_row_with_nothing_explainable_has_no_cut() -> None:
    mask = torch.tensor([[False, False], [True, False]])
    assert top_k(torch.ones(2, 2), mask, 50.0).tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize("gradient", TOPK_GRADIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(
    logits=st.lists(st.floats(-12, 12), min_size=2, max_size=30),
    percent=st.sampled_from(PERCENTS),
)
@example(logits=[0.0, 1.0, 2.0], percent="50")
@settings(max_examples=60, deadline=None)
def test_the_value_of_the_soft_cut_is_exactly_the_hard_one(
    gradient: str, dtype: torch.dtype, logits: list[float], percent: str
) -> None:
    """To the bit: ``keep > 0`` decides whether a token is removed."""
    saliency = torch.tensor([logits], dtype=dtype).softmax(-1)
    explainable = torch.ones(1, len(logits), dtype=torch.bool)
    found = soft_top_k(saliency, explainable, float(percent), gradient)
    assert torch.equal(found, top_k(saliency, explainable, float(percent)).to(dtype))


SALIENCY = [[0.5, 0.25, 0.125, 0.0625, 0.0625, 0.0]]
EXPLAINABLE = [[True, True, True, True, True, False]]


def jacobian(gradient: str, percent: float, **options: float) -> Tensor:
    """``d keep_i / d r_j`` of the row above."""
    mask = torch.tensor(EXPLAINABLE)

    def cut(saliency: Tensor) -> Tensor:
        return soft_top_k(saliency, mask, percent, gradient, **options)[0]

    return torch.autograd.functional.jacobian(cut, torch.tensor(SALIENCY).double())[:, 0]


def test_straight_through_is_differentiated_as_the_saliency_itself() -> None:
    assert torch.equal(jacobian("straight-through", 40.0), torch.eye(6).double())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sigmoid_is_differentiated_about_the_middle_of_the_cut(temperature: float) -> None:
    """n = 2 of 5: the last inside has 1/4, the first outside 1/8, the middle is their
    geometric mean, and ``d sigmoid((log r - log t) / T) / dr = s (1 - s) / (T r)``."""
    threshold = math.sqrt(0.25 * 0.125)
    expected = torch.zeros(6, 6).double()
    for place, r in enumerate(SALIENCY[0][:5]):
        s = 1 / (1 + (threshold / r) ** (1 / temperature))
        expected[place, place] = s * (1 - s) / (temperature * r)
    found = jacobian("sigmoid", 40.0, temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_sigmoid_does_not_depend_on_the_scale_of_the_saliency() -> None:
    """In the logarithm of r: r times the derivative is the same for r and r / 100."""
    mask = torch.tensor(EXPLAINABLE)
    slopes = []
    for scale in (1.0, 0.01):
        saliency = (scale * torch.tensor(SALIENCY).double()).requires_grad_()
        soft_top_k(saliency, mask, 40.0, "sigmoid").sum().backward()
        assert saliency.grad is not None
        slopes.append(saliency.grad * saliency.detach())
    torch.testing.assert_close(slopes[0], slopes[1])


@pytest.mark.parametrize("gradient", TOPK_GRADIENTS)
def test_the_gradient_is_finite_also_with_exact_zeros_and_with_everything_inside(
    gradient: str,
) -> None:
    saliency = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    saliency.requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    for percent in (1.0, 50.0, 100.0):
        cut = soft_top_k(saliency, mask, percent, gradient)
        (found,) = torch.autograd.grad(cut.sum(), saliency)
        assert torch.isfinite(found).all()
        assert found.abs().sum() > 0


def test_an_unknown_gradient_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        soft_top_k(torch.tensor(SALIENCY), torch.tensor(EXPLAINABLE), 10.0, "sigmoidal")
    assert str(caught.value) == (
        "unknown top-k gradient 'sigmoidal'. Did you mean 'sigmoid'? "
        "Choose from: sigmoid, straight-through."
    )
