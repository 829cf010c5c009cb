"""Every normaliser against references, and the contract it shares with the others."""

import inspect
import itertools
from collections.abc import Callable

import entmax
import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ivra.attention.normalisers import NORMALISERS, Normaliser, masked_softmax, normaliser
from ivra.errors import IvraError

POWERS = {"sparsemax": (1.0, 1), "entmax15": (0.5, 2)}

every_normaliser = pytest.mark.parametrize("normalise", NORMALISERS.values(), ids=NORMALISERS)


def bisected(scores: np.ndarray, name: str) -> np.ndarray:
    """One row: ``[a s - tau]_+ ^ power`` with tau by bisection until it sums to 1."""
    if name == "softmax":
        return scipy.special.softmax(scores)
    factor, power = POWERS[name]
    z = factor * scores
    low, high = z.max() - 1.0, z.max()
    for _ in range(200):
        tau = (low + high) / 2
        if (np.maximum(z - tau, 0) ** power).sum() > 1:
            low = tau
        else:
            high = tau
    return np.maximum(z - low, 0) ** power


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def masked_rows() -> tuple[Tensor, Tensor]:
    """Six rows of five: all allowed, some, one, and none."""
    mask = torch.tensor(
        [[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0] * 5, [1] * 5],
        dtype=torch.bool,
    )
    return drawn(6, 5, seed=3), mask


@pytest.mark.parametrize("name", NORMALISERS)
@given(
    rows=st.integers(1, 4),
    n=st.integers(1, 40),
    scale=st.sampled_from([0.0, 0.1, 1.0, 8.0, 1e3]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_equals_bisection_on_the_allowed_entries(name: str, rows: int, n: int, scale: float, seed):
    scores = drawn(rows, n, seed=seed, scale=scale)
    mask = drawn(rows, n, seed=seed + 1) > 0
    result = normaliser(name)(scores, mask)
    for row, allowed, given_ in zip(scores, mask, result, strict=True):
        assert (given_[~allowed] == 0).all()
        if allowed.any():
            expected = bisected(row[allowed].numpy(), name)
            np.testing.assert_allclose(given_[allowed].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "reference"), [("sparsemax", entmax.sparsemax), ("entmax15", entmax.entmax15)]
)
def test_equals_the_entmax_package(name: str, reference: Callable[..., Tensor]):
    scores = drawn(20, 30, seed=1, scale=1.5).requires_grad_()
    weights = drawn(20, 30, seed=2)
    ours, theirs = normaliser(name)(scores, None), reference(scores, dim=-1)
    torch.testing.assert_close(ours, theirs)
    (grad_ours,) = torch.autograd.grad((ours * weights).sum(), scores)
    (grad_theirs,) = torch.autograd.grad((theirs * weights).sum(), scores)
    torch.testing.assert_close(grad_ours, grad_theirs)


def test_softmax_equals_torch():
    scores = drawn(3, 4, 5)
    torch.testing.assert_close(normaliser("softmax")(scores, None, 1), scores.softmax(1))


@every_normaliser
def test_masking_is_removing_whatever_stands_there(normalise: Normaliser):
    scores = drawn(1, 6)
    mask = torch.tensor([[True, False, True, False, False, True]])
    spoilt = scores.masked_fill(~mask, torch.nan)
    spoilt[0, 1], spoilt[0, 3] = torch.inf, -torch.inf
    spoilt.requires_grad_()
    result = normalise(spoilt, mask)
    torch.testing.assert_close(result[mask], normalise(scores[mask], None), rtol=0, atol=1e-15)
    assert (result[~mask] == 0).all()
    (grad,) = torch.autograd.grad((result * drawn(1, 6, seed=9)).sum(), spoilt)
    assert (grad[~mask] == 0).all()
    assert grad.isfinite().all()


@every_normaliser
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_allowed_entry_is_one_and_none_is_zeros(normalise: Normaliser, dtype: torch.dtype):
    mask = torch.tensor([[False, True, False], [False, False, False]])
    result = normalise(torch.tensor([[3.3, -77.7, 1e3], [1.0, 2.0, 3.0]], dtype=dtype), mask)
    assert result.dtype == dtype
    assert result.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@every_normaliser
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_single_precision_rounded(normalise: Normaliser, dtype: torch.dtype):
    scores = (1.5 * drawn(4, 200)).to(dtype)
    assert torch.equal(normalise(scores, None), normalise(scores.float(), None).to(dtype))
    wide = torch.tensor([[6e4, -6e4, 5.9e4]], dtype=dtype)
    assert normalise(wide, None).tolist() == [[1.0, 0.0, 0.0]]


@every_normaliser
def test_first_and_second_derivatives_are_right(normalise: Normaliser):
    scores, mask = masked_rows()
    scores.requires_grad_()
    assert gradcheck(lambda s: normalise(s, mask), (scores,), check_forward_ad=True)
    assert gradgradcheck(lambda s: normalise(s, mask), (scores,), check_fwd_over_rev=True)
    assert gradgradcheck(lambda s: normalise(s, None, 0), (drawn(4, 3).requires_grad_(),))


@every_normaliser
@pytest.mark.parametrize(
    "row",
    [[0.0, 0.0, 0.0], [0.0, -1.0, -1.0], [0.0, -2.0], [1.0, 1.0, -50.0], [0.0, 1.0, 1.0], [0.0]],
    ids=str,
)
def test_derivatives_are_finite_at_ties_and_at_the_threshold(normalise: Normaliser, row: list):
    for mask in (None, torch.zeros(len(row), dtype=torch.bool)):
        scores = torch.tensor(row, dtype=torch.float64)
        first = torch.func.jacrev(lambda s, m=mask: normalise(s, m))(scores)
        second = torch.func.hessian(lambda s, m=mask: normalise(s, m))(scores)
        assert first.isfinite().all()
        assert second.isfinite().all()
        assert mask is None or (first.count_nonzero() == 0 and second.count_nonzero() == 0)


@every_normaliser
def test_forward_mode_agrees_with_reverse_mode(normalise: Normaliser):
    scores, mask = masked_rows()
    tangent = drawn(6, 5, seed=4)
    value, push = torch.func.jvp(lambda s: normalise(s, mask), (scores,), (tangent,))
    jacobian = torch.func.jacrev(lambda s: normalise(s, mask))(scores)
    torch.testing.assert_close(value, normalise(scores, mask))
    torch.testing.assert_close(push, torch.einsum("ijkl,kl->ij", jacobian, tangent))


@every_normaliser
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    axis=st.integers(0, 3),
    shift=st.floats(-50, 50),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_and_axis(normalise: Normaliser, shape: list, axis: int, shift: float, seed: int):
    dim = axis % len(shape)
    scores, mask = drawn(*shape, seed=seed), drawn(*shape, seed=seed + 1) > -0.5
    result = normalise(scores, mask, dim)
    assert result.shape == scores.shape
    assert (result >= 0).all()
    torch.testing.assert_close(result.sum(dim), mask.any(dim).to(result.dtype))
    torch.testing.assert_close(normalise(scores + shift, mask, dim), result)
    torch.testing.assert_close(normalise(scores, mask, dim - len(shape)), result)
    order = torch.randperm(shape[dim], generator=torch.Generator().manual_seed(seed))
    shuffled = normalise(scores.index_select(dim, order), mask.index_select(dim, order), dim)
    torch.testing.assert_close(shuffled, result.index_select(dim, order))


@every_normaliser
def test_tied_scores_get_equal_mass_in_every_order(normalise: Normaliser):
    for order in set(itertools.permutations([0.7, 0.7, 0.7, 0.1, -0.3])):
        result = normalise(torch.tensor(order, dtype=torch.float32), None)
        assert result[torch.tensor(order) == 0.7].unique().numel() == 1


@every_normaliser
def test_long_rows_in_single_precision(normalise: Normaliser):
    scores = drawn(8, 4096, scale=0.01)
    close = normalise(scores.float(), None).double() - normalise(scores, None)
    assert close.abs().max() < 1e-6


@every_normaliser
def test_mask_broadcasts(normalise: Normaliser):
    scores = drawn(2, 3, 4)
    mask = torch.tensor([True, False, True, True])
    assert torch.equal(normalise(scores, mask), normalise(scores, mask.expand(2, 3, 4)))


@every_normaliser
def test_nan_is_not_hidden(normalise: Normaliser):
    scores = torch.tensor([[0.0, torch.nan], [0.0, torch.inf], [0.0, -torch.inf]])
    result = normalise(scores, None)
    assert result[:2].isnan().any(dim=1).all()
    assert result[2].tolist() == [1.0, 0.0]


def test_only_sparse_maps_give_zeros():
    scores = torch.tensor([0.0, -1.5, -3.0])
    zeros = {name: int((f(scores, None) == 0).sum()) for name, f in NORMALISERS.items()}
    assert zeros == {"softmax": 0, "sparsemax": 2, "entmax15": 1}


def test_errors_say_how_to_mend():
    with pytest.raises(IvraError, match="Did you mean 'sparsemax'"):
        normaliser("sparsmax")
    unchecked = inspect.unwrap(masked_softmax)  # the shape checks of the tests come first
    with pytest.raises(IvraError, match=r"Use mask\.bool\(\)"):
        unchecked(torch.zeros(2), torch.ones(2))
    with pytest.raises(IvraError, match=r"Use scores\.float\(\)"):
        unchecked(torch.zeros(2, dtype=torch.long), None)
