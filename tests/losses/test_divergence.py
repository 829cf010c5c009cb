"""Divergences against scipy's relative entropy, one pair and one token at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch import Tensor
from torch.autograd import gradcheck

from ivra.losses import kl_divergence, mixed, pairwise_kl, soft_top_k
from ivra.losses.consistency import consistency_loss, hidden_distances, saliency_divergences

SHARE = 1e-4


def saliencies(rows: int, length: int, seed: int, sparse: bool = False) -> tuple[Tensor, Tensor]:
    """Random points of the simplex over random explainable tokens (one at least)."""
    rng = np.random.default_rng(seed)
    mask = rng.random((rows, length)) < 0.7
    mask[np.arange(rows), rng.integers(0, length, rows)] = True
    values = rng.exponential(size=(rows, length)) * mask
    if sparse:
        best = values.argmax(-1)
        values = np.zeros_like(values)
        values[np.arange(rows), best] = 1
    return torch.tensor(values / values.sum(-1, keepdims=True)), torch.tensor(mask)


def smoothed(row: np.ndarray, support: np.ndarray) -> np.ndarray:
    return np.where(support, (1 - SHARE) * row + SHARE / support.sum(), 0.0)


drawn = given(
    rows=st.integers(1, 6),
    length=st.integers(1, 20),
    seed=st.integers(0, 10_000),
    sparse=st.booleans(),
)


@drawn
@settings(max_examples=60, deadline=None)
def test_mixed_is_a_point_of_the_simplex_without_zeros(
    rows: int, length: int, seed: int, sparse: bool
) -> None:
    saliency, mask = saliencies(rows, length, seed, sparse)
    found = mixed(saliency, mask).numpy()
    expected = [smoothed(r, m) for r, m in zip(saliency.numpy(), mask.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert (found[~mask.numpy()] == 0).all()


@drawn
@settings(max_examples=60, deadline=None)
def test_kl_is_scipys_relative_entropy_in_nats(
    rows: int, length: int, seed: int, sparse: bool
) -> None:
    p, mask = saliencies(rows, length, seed, sparse)
    q = torch.rand(p.shape, generator=torch.Generator().manual_seed(seed)).double() * mask
    q = q / q.sum(-1, keepdim=True)
    expected = [
        sum(rel_entr(a, b) for a, b in zip(smoothed(x, m), smoothed(y, m), strict=True))
        for x, y, m in zip(p.numpy(), q.numpy(), mask.numpy(), strict=True)
    ]
    np.testing.assert_allclose(kl_divergence(p, q, mask).numpy(), expected, atol=1e-12)


@drawn
@settings(max_examples=60, deadline=None)
def test_pairwise_kl_is_the_loop_over_pairs_on_the_union_of_supports(
    rows: int, length: int, seed: int, sparse: bool
) -> None:
    saliency, mask = saliencies(rows, length, seed, sparse)
    union = mask.numpy().any(0)
    even = [smoothed(row, union) for row in saliency.numpy()]
    expected = [[rel_entr(p, q).sum() for q in even] for p in even]
    np.testing.assert_allclose(pairwise_kl(saliency, mask).numpy(), expected, atol=1e-11)


def test_kl_is_zero_between_equals_and_only_there() -> None:
    p = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]).double()
    q = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.301, 0.499]]).double()
    found = kl_divergence(p, q, torch.ones(2, 3, dtype=torch.bool))
    assert found[0] == 0
    assert found[1] > 1e-7


def test_kl_of_disjoint_supports_is_finite_and_known_by_hand() -> None:
    p, q = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    big, small = 1 - SHARE / 2, SHARE / 2
    expected = (big - small) * np.log(big / small)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert kl_divergence(p, q, mask).item() == pytest.approx(expected, rel=1e-12)
    both = torch.cat([p, q])
    pairs = pairwise_kl(both, mask.expand(2, 2))
    np.testing.assert_allclose(pairs.numpy(), [[0, expected], [expected, 0]], rtol=1e-12)


def test_kl_is_not_symmetric_and_p_comes_first() -> None:
    p = torch.tensor([[0.9, 0.1]]).double()
    q = torch.tensor([[0.5, 0.5]]).double()
    mask = torch.ones(1, 2, dtype=torch.bool)
    forward, backward = kl_divergence(p, q, mask).item(), kl_divergence(q, p, mask).item()
    assert forward == pytest.approx(0.368, abs=1e-3)
    assert backward == pytest.approx(0.5108, abs=1e-3)
    pairs = pairwise_kl(torch.cat([p, q]), mask.expand(2, 2))
    assert pairs[0, 1].item() == pytest.approx(forward)
    assert pairs[1, 0].item() == pytest.approx(backward)


@pytest.mark.parametrize("padding", [1, 7])
def test_padding_changes_no_divergence(padding: int) -> None:
    p, mask = saliencies(4, 9, seed=1)
    q, _ = saliencies(4, 9, seed=1)
    q = q.flip(-1) * mask
    q = q / q.sum(-1, keepdim=True)
    longer = [torch.nn.functional.pad(x, (0, padding)) for x in (p, q)]
    wide = torch.nn.functional.pad(mask, (0, padding))
    torch.testing.assert_close(kl_divergence(p, q, mask), kl_divergence(*longer, wide))
    torch.testing.assert_close(pairwise_kl(p, mask), pairwise_kl(longer[0], wide))


def test_gradients_agree_with_difference_quotients() -> None:
    p, mask = saliencies(3, 5, seed=2)
    q, _ = saliencies(3, 5, seed=3)
    q = torch.where(mask, q + 0.1, 0.0)
    assert gradcheck(
        lambda x, y: kl_divergence(x, y, mask), (p.requires_grad_(), q.requires_grad_())
    )
    assert gradcheck(lambda x: pairwise_kl(x, mask), (p,))


def test_everything_stays_on_the_device_of_its_inputs() -> None:
    """The meta device, like any other, refuses tensors that were left on the CPU."""
    saliency = torch.rand(4, 6, device="meta")
    mask = torch.ones(4, 6, dtype=torch.bool, device="meta")
    hidden = torch.rand(4, 6, 3, device="meta")
    distances = hidden_distances(hidden, mask)
    found = [
        mixed(saliency, mask),
        kl_divergence(saliency, saliency, mask),
        soft_top_k(saliency, mask, 10.0),
        soft_top_k(saliency, mask, 10.0, "sigmoid"),
        distances,
        pairwise_kl(saliency, mask),
        consistency_loss(saliency_divergences(saliency, mask, mask), distances),
    ]
    assert {tensor.device.type for tensor in found} == {"meta"}
