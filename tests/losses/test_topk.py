"""The cut at k percent against exact fractions, and what it is differentiated as."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor

from ivra.errors import IvraError
from ivra.losses import CUT_GRADIENTS, sampled_loss, soft_top_k, top_k

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


@pytest.mark.parametrize("gradient", CUT_GRADIENTS)
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


@pytest.mark.parametrize("gradient", CUT_GRADIENTS)
def test_the_gradient_is_finite_also_with_exact_zeros_and_with_everything_inside(
    gradient: str,
) -> None:
    saliency = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    saliency.requires_grad_()
    mask = torch.tensor([[True, True, True], [True, True, False], [True, True, True]])
    for percent in (1.0, 50.0, 100.0):
        generator = torch.Generator().manual_seed(0)
        cut = soft_top_k(saliency, mask, percent, gradient, samples=64, generator=generator)
        (found,) = torch.autograd.grad(cut[:, 0].sum(), saliency)
        assert torch.isfinite(found).all()
        assert found[2].abs().sum() > 0 or percent == 100.0


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_entropic_is_differentiated_as_the_solution_of_its_equation(temperature: float) -> None:
    """By difference quotients of ``sigmoid((log r - t) / T)`` with ``t`` from scipy's root finder
    such that two of the five are inside."""

    def solved(saliency: np.ndarray) -> np.ndarray:
        scores = np.log(saliency) / temperature
        t = brentq(lambda t: expit(scores - t).sum() - 2, -60, 60, xtol=1e-14, rtol=1e-14)
        return expit(scores - t)

    r = np.array(SALIENCY[0][:5])
    expected = np.zeros((6, 6))
    for place in range(5):
        step = np.zeros(5)
        step[place] = 1e-5 * r[place]
        expected[:5, place] = (solved(r + step) - solved(r - step)) / (2 * step[place])
    found = jacobian("entropic", 40.0, temperature=temperature).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    in_scores = found * np.array(SALIENCY)
    np.testing.assert_allclose(in_scores.sum(0), 0, atol=1e-12)
    np.testing.assert_allclose(in_scores.sum(1), 0, atol=1e-12)


def perturbed_jacobian(percent: float, temperature: float, samples: int, seed: int) -> Tensor:
    """``d keep_i / d log r_j`` of the row above."""
    mask = torch.tensor(EXPLAINABLE)
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.tensor(SALIENCY).double().requires_grad_()
    cut = soft_top_k(saliency, mask, percent, "perturbed", temperature, samples, generator)[0]
    rows = [torch.autograd.grad(keep, saliency, retain_graph=True)[0][0] for keep in cut]
    return torch.stack(rows) * torch.tensor(SALIENCY).double()


def test_perturbed_is_the_derivative_of_the_mean_cut() -> None:
    """Of one token of two: ``P(s_1 + z_1 > s_2 + z_2)`` is a normal distribution function."""
    generator = torch.Generator().manual_seed(0)
    saliency = torch.tensor([[0.6, 0.4]], dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    cut = soft_top_k(saliency, mask, 50.0, "perturbed", 0.5, 40_000, generator)
    (found,) = torch.autograd.grad(cut[0, 0], saliency)
    width = 0.5 * math.sqrt(2)
    slope = norm.pdf(math.log(0.6 / 0.4) / width) / width
    expected = [slope / 0.6, -slope / 0.4]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0.03)


def test_perturbed_is_the_naive_mean_over_the_same_draws() -> None:
    """``mean of top_k(s + T z) (z - mean z)' / T``, sample by sample, over the pairs z and -z."""
    temperature, samples = 0.7, 10
    noise = torch.randn((samples // 2, 1, 6), generator=torch.Generator().manual_seed(4)).double()
    expected = np.zeros((6, 6))
    for z in (*noise[:, 0, :5].tolist(), *(-noise[:, 0, :5]).tolist()):
        scores = [math.log(r) + temperature * d for r, d in zip(SALIENCY[0][:5], z, strict=True)]
        cut = naive_cut([*scores, 0.0], EXPLAINABLE[0], "40")
        for i in range(6):
            for j in range(5):
                expected[i, j] += cut[i] * (z[j] - sum(z) / 5) / (temperature * samples)
    found = perturbed_jacobian(40.0, temperature, samples, seed=4).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_perturbed_repeats_itself_with_its_seed() -> None:
    first, again, other = (perturbed_jacobian(40.0, 1.0, 8, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    np.testing.assert_allclose(first.sum(0).numpy(), 0, atol=1e-12)


def test_where_everything_is_inside_there_is_nothing_to_choose() -> None:
    assert (jacobian("entropic", 100.0) == 0).all()
    assert (perturbed_jacobian(100.0, 1.0, 8, seed=1) == 0).all()


def test_half_precision_tells_small_saliencies_apart() -> None:
    """Their logarithms are taken in float32: 1/256 and 1/512 are below the root of tiny."""
    r = torch.tensor([[1 / 256, 1 / 512, 1 / 1024]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    for gradient in ("sigmoid", "entropic"):
        slopes = []
        for dtype in (torch.float16, torch.float32):
            saliency = r.to(dtype).requires_grad_()
            cut = soft_top_k(saliency, mask, 30.0, gradient)
            slopes.append(torch.autograd.grad(cut[0, 1], saliency)[0].float())
        torch.testing.assert_close(*slopes, rtol=5e-3, atol=1e-2)


def slopes_of_sampled(
    temperature: float, samples: int, seed: int
) -> tuple[float, Tensor, list[list[float]]]:
    """A loss that is the share of evidence kept, squared; its gradient in log r; the cuts seen."""
    evidence = torch.tensor([[0.5, -0.3, 0.8, 0.1, 0.2, 9.0]]).double()
    seen = []

    def loss(cut: Tensor) -> Tensor:
        seen.append(cut[0].tolist())
        return (cut * evidence).sum(-1).square()

    saliency = torch.tensor(SALIENCY).double().requires_grad_()
    found = sampled_loss(
        saliency,
        torch.tensor(EXPLAINABLE),
        40.0,
        loss,
        temperature,
        samples,
        torch.Generator().manual_seed(seed),
    )
    (slope,) = torch.autograd.grad(found.sum(), saliency)
    return found.item(), (slope * saliency).detach()[0], seen


def test_sampled_is_the_loss_of_the_hard_cut_and_the_naive_mean_of_differences() -> None:
    temperature, samples = 0.7, 10
    value, slope, seen = slopes_of_sampled(temperature, samples, seed=4)
    assert value == pytest.approx((0.5 - 0.3) ** 2)
    evidence = [0.5, -0.3, 0.8, 0.1, 0.2]
    noise = torch.randn((samples // 2, 1, 6), generator=torch.Generator().manual_seed(4)).double()
    expected, cuts = np.zeros(6), [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    for z in noise[:, 0, :5].tolist():
        losses = []
        for sign in (1, -1):
            scores = [
                math.log(r) + sign * temperature * d
                for r, d in zip(SALIENCY[0][:5], z, strict=True)
            ]
            cut = naive_cut([*scores, 0.0], EXPLAINABLE[0], "40")
            cuts.append([float(flag) for flag in cut])
            losses.append(sum(e for e, flag in zip(evidence, cut, strict=False) if flag) ** 2)
        for j in range(5):
            expected[j] += (losses[0] - losses[1]) * (z[j] - sum(z) / 5) / (temperature * samples)
    assert seen == cuts
    np.testing.assert_allclose(slope.numpy(), expected, atol=1e-12)


def test_sampled_approaches_the_gradient_of_the_smoothed_objective() -> None:
    """Of one token of two, whose loss is 3 where it is kept and 1 where the other is."""
    saliency = torch.tensor([[0.6, 0.4]], dtype=torch.float64, requires_grad=True)
    worth = torch.tensor([[3.0, 1.0]], dtype=torch.float64)
    found = sampled_loss(
        saliency,
        torch.ones(1, 2, dtype=torch.bool),
        50.0,
        lambda cut: (cut * worth).sum(-1),
        0.5,
        20_000,
        torch.Generator().manual_seed(0),
    )
    (slope,) = torch.autograd.grad(found.sum(), saliency)
    width = 0.5 * math.sqrt(2)
    swing = 2 * norm.pdf(math.log(0.6 / 0.4) / width) / width
    np.testing.assert_allclose(slope[0].numpy(), [swing / 0.6, -swing / 0.4], rtol=0.04)


def test_sampled_leaves_the_gradient_of_everything_else_at_the_hard_cut() -> None:
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    saliency = torch.tensor(SALIENCY).double()
    mask = torch.tensor(EXPLAINABLE)
    found = sampled_loss(saliency, mask, 20.0, lambda cut: weight * cut[:, 0])
    (slope,) = torch.autograd.grad(found.sum(), weight)
    assert slope.item() == 1


def test_an_unknown_gradient_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        soft_top_k(torch.tensor(SALIENCY), torch.tensor(EXPLAINABLE), 10.0, "sigmoidal")
    assert str(caught.value) == (
        "unknown top-k gradient 'sigmoidal'. Did you mean 'sigmoid'? "
        "Choose from: entropic, perturbed, sigmoid, straight-through."
    )
