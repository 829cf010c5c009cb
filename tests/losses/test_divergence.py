"""Divergences against scipy's relative entropy, one pair and one token at a time."""

import entmax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from ivra.attention import normaliser
from ivra.errors import IvraError
from ivra.losses import (
    DIVERGENCES,
    kl_divergence,
    mixed,
    pairwise_fenchel_young,
    pairwise_js,
    pairwise_kl,
    row_divergence,
    soft_top_k,
    squared_distances,
)
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


@drawn
@settings(max_examples=40, deadline=None)
def test_js_is_scipys_squared_distance(rows: int, length: int, seed: int, sparse: bool) -> None:
    saliency, _ = saliencies(rows, length, seed, sparse)
    found = pairwise_js(saliency).numpy()
    expected = [[jensenshannon(p, q) ** 2 for q in saliency.numpy()] for p in saliency.numpy()]
    np.testing.assert_allclose(found, np.nan_to_num(expected), atol=1e-9)
    assert (found <= np.log(2) + 1e-12).all()
    assert (found == found.T).all()


def naive_fenchel_young(p: np.ndarray, q: np.ndarray, normaliser: str) -> float:
    """``Omega*(s) + Omega(p) - s . p`` at ``s = grad Omega(q)``, where ``Omega*(s) = s . q -
    Omega(q)`` because ``q`` is what the normaliser makes of ``s``."""
    if normaliser == "sparsemax":
        omega, scores = lambda x: 0.5 * (x**2).sum() - 0.5, q
    else:
        omega, scores = lambda x: 4 / 3 * ((x**1.5).sum() - 1), 2 * np.sqrt(q)
    return (scores @ q - omega(q)) + omega(p) - scores @ p


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
@drawn
@settings(max_examples=40, deadline=None)
def test_fenchel_young_is_its_definition_pair_by_pair(
    name: str, rows: int, length: int, seed: int, sparse: bool
) -> None:
    saliency, mask = saliencies(rows, length, seed, sparse)
    found = pairwise_fenchel_young(saliency, mask, name).numpy()
    own = saliency.numpy()
    expected = [[naive_fenchel_young(p, q, name) for q in own] for p in own]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found <= (1 if name == "sparsemax" else 2) + 1e-9).all()


@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_fenchel_young_is_the_loss_of_the_entmax_package(name: str) -> None:
    """Its targets are single classes: rows that are all on one token."""
    q, mask = saliencies(1, 6, seed=11)
    q, mask = q[:, mask[0]], mask[:, mask[0]]
    scores = q if name == "sparsemax" else 2 * q.sqrt()
    torch.testing.assert_close(normaliser(name)(scores, mask), q)
    losses = {"sparsemax": entmax.sparsemax_loss, "entmax15": entmax.entmax15_loss}
    for place in range(q.shape[1]):
        p = torch.nn.functional.one_hot(torch.tensor([place]), q.shape[1]).double()
        found = pairwise_fenchel_young(torch.cat([p, q]), mask.expand(2, -1), name)[0, 1]
        expected = losses[name](scores, torch.tensor([place]))
        assert found.item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("normaliser", ["softmax", "sparsemax", "entmax15"])
@pytest.mark.parametrize("name", DIVERGENCES)
@drawn
@settings(max_examples=20, deadline=None)
def test_a_divergence_of_rows_is_that_of_the_pair(
    name: str, normaliser: str, rows: int, length: int, seed: int, sparse: bool
) -> None:
    p, mask = saliencies(rows, length, seed, sparse)
    q = torch.rand(p.shape, generator=torch.Generator().manual_seed(seed)).double() * mask
    q = q / q.sum(-1, keepdim=True)
    found = row_divergence(name, normaliser)(p, q, mask)
    for row in range(rows):
        kept = mask[row]
        pair, both = torch.stack([p[row, kept], q[row, kept]]), kept[kept].expand(2, -1)
        expected = {
            "kl": lambda pair=pair, both=both: pairwise_kl(pair, both),
            "js": lambda pair=pair: pairwise_js(pair),
            "fenchel-young": lambda pair=pair, both=both: pairwise_fenchel_young(
                pair, both, normaliser
            ),
        }[name]()[0, 1]
        assert found[row].item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_of_rows_has_second_derivatives(name: str) -> None:
    """What the hypergradient of a student asks for, sparse rows included."""
    generator = torch.Generator().manual_seed(2)
    inside = (torch.rand(3, 5, generator=generator).double() + 0.1).requires_grad_()
    q = torch.rand(3, 5, generator=generator).double() + 0.1
    mask = torch.ones(3, 5, dtype=torch.bool)
    divergence = row_divergence(name, "entmax15")
    apart = lambda x, y: divergence(x, y, mask)  # noqa: E731
    assert gradcheck(apart, (inside, q.requires_grad_()))
    assert gradgradcheck(apart, (inside, q))
    hard = functional.one_hot(torch.tensor([0, 2, 2]), 5).double()
    (pull,) = torch.autograd.grad(
        divergence(hard.requires_grad_(), q, mask).sum(), q, create_graph=True
    )
    (mixed_slope,) = torch.autograd.grad(pull.square().sum(), hard)
    assert torch.isfinite(mixed_slope).all()


def test_an_unknown_divergence_lists_the_choices() -> None:
    with pytest.raises(IvraError, match="fenchel-young, js, kl"):
        row_divergence("l2")


def test_fenchel_young_of_softmax_is_kl() -> None:
    saliency, mask = saliencies(4, 7, seed=5)
    found = pairwise_fenchel_young(saliency, mask, "softmax")
    assert torch.equal(found, pairwise_kl(saliency, mask))


@drawn
@settings(max_examples=30, deadline=None)
def test_squared_distances_are_those_of_the_loop(
    rows: int, length: int, seed: int, sparse: bool
) -> None:
    saliency, _ = saliencies(rows, length, seed, sparse)
    own = 100 + saliency.numpy()  # a shared offset
    expected = [[((p - q) ** 2).sum() for q in own] for p in own]
    np.testing.assert_allclose(squared_distances(torch.tensor(own)).numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["js", "sparsemax", "entmax15"])
def test_gradients_of_pairs_are_difference_quotients_and_finite_at_zeros(kind: str) -> None:
    def pairs(r: Tensor) -> Tensor:
        support = torch.ones_like(r, dtype=torch.bool)
        return pairwise_js(r) if kind == "js" else pairwise_fenchel_young(r, support, kind)

    generator = torch.Generator().manual_seed(6)
    inside = torch.rand(4, 5, generator=generator).double() + 0.1
    assert gradcheck(pairs, (inside.requires_grad_(),))
    scores = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 4.0]], requires_grad=True)
    name = "sparsemax" if kind == "js" else kind
    (slope,) = torch.autograd.grad(pairs(normaliser(name)(scores, None)).sum(), scores)
    assert torch.isfinite(slope).all()


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
        pairwise_js(saliency),
        pairwise_fenchel_young(saliency, mask, "entmax15"),
        pairwise_fenchel_young(saliency, mask, "sparsemax"),
        soft_top_k(saliency, mask, 10.0, "entropic"),
        soft_top_k(saliency, mask, 10.0, "perturbed"),
        consistency_loss(saliency_divergences(saliency, mask, mask), distances),
    ]
    assert {tensor.device.type for tensor in found} == {"meta"}
