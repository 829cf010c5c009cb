"""Consistency against loops over pairs of rows, tokens and features."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr
from torch import Tensor

from ivra.data import Batch
from ivra.losses import (
    Consistency,
    View,
    batch_consistency,
    clustering_loss,
    consistency_loss,
    hidden_distances,
    saliency_divergences,
    scale_free_consistency_loss,
)

MakeBatch = Callable[..., Batch]
WIDTH = 3


def drawn(rows: Batch, seed: int) -> tuple[Tensor, Tensor]:
    """Hidden states (loud on padding) and a saliency, aligned with the visible tokens."""
    hidden = torch.full((*rows.input_ids.shape, WIDTH), 1e3, dtype=torch.float64)
    saliency = torch.zeros(rows.input_ids.shape, dtype=torch.float64)
    for row, mask in enumerate(rows.attention_mask):
        generator = torch.Generator().manual_seed(seed * 100 + row)
        length = int(mask.sum())
        hidden[row, mask] = torch.randn(length, WIDTH, generator=generator).double()
        own = rows.explainable[row]
        scores = torch.randn(int(own.sum()), generator=generator).double()
        saliency[row, own] = scores.softmax(-1)
    return hidden, saliency


def tokens_of(values: Tensor, rows: Batch) -> list[np.ndarray]:
    return [v[m].numpy() for v, m in zip(values, rows.attention_mask, strict=True)]


def naive_distance(a: np.ndarray, b: np.ndarray) -> float:
    square = 0.0
    for token in range(max(len(a), len(b))):
        for feature in range(WIDTH):
            x = a[token, feature] if token < len(a) else 0.0
            y = b[token, feature] if token < len(b) else 0.0
            square += (x - y) ** 2
    return math.sqrt(square)


def naive_divergences(saliency: Tensor, rows: Batch) -> np.ndarray:
    """KL of all pairs; uniform mass on every position explainable in some row."""
    own = tokens_of(saliency, rows)
    flags = tokens_of(rows.explainable, rows)
    longest = max(map(len, own))
    padded = [np.pad(r, (0, longest - len(r))) for r in own]
    union = np.any([np.pad(f, (0, longest - len(f))) for f in flags], axis=0)
    even = [np.where(union, (1 - 1e-4) * r + 1e-4 / union.sum(), 0) for r in padded]
    return np.array([[rel_entr(p, q).sum() for q in even] for p in even])


shapes = given(
    lengths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    side=st.sampled_from(["right", "left"]),
    seed=st.integers(0, 500),
)


@shapes
@settings(max_examples=40, deadline=None)
def test_distances_are_the_loop_over_tokens_and_features(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch(lengths, side)
    hidden, _ = drawn(rows, seed)
    own = tokens_of(hidden, rows)
    expected = [[naive_distance(a, b) for b in own] for a in own]
    found = hidden_distances(hidden, rows.attention_mask)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@shapes
@settings(max_examples=40, deadline=None)
def test_divergences_count_positions_from_the_first_token(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch(lengths, side)
    _, saliency = drawn(rows, seed)
    found = saliency_divergences(saliency, rows.explainable, rows.attention_mask)
    np.testing.assert_allclose(found.numpy(), naive_divergences(saliency, rows), atol=1e-11)


def naive_loss(divergences: np.ndarray, distances: np.ndarray) -> list[float]:
    losses = []
    for i in range(len(distances)):
        ratios = [
            divergences[i, j] / (distances[i, j] + 1e-8) for j in range(len(distances)) if j != i
        ]
        losses.append(sum(ratios) / len(ratios))
    return losses


@shapes
@settings(max_examples=40, deadline=None)
def test_the_loss_is_the_mean_ratio_over_the_other_rows(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch(lengths, side)
    hidden, saliency = drawn(rows, seed)
    own = tokens_of(hidden, rows)
    distances = np.array([[naive_distance(a, b) for b in own] for a in own])
    view = view_of(rows, hidden, saliency)
    found = Consistency("ratio")(view)
    assert list(found) == ["cons"]
    expected = naive_loss(naive_divergences(saliency, rows), distances)
    np.testing.assert_allclose(found["cons"].numpy(), expected, rtol=1e-5)


def view_of(rows: Batch, hidden: Tensor, saliency: Tensor) -> View:
    def none(_: object) -> Tensor:
        raise AssertionError("consistency reruns nothing")

    logits = torch.zeros(len(rows), 2, dtype=torch.float64)
    return View(rows, logits, saliency, hidden, none, none)


def test_the_loss_in_float32_is_the_one_in_float64(batch: MakeBatch) -> None:
    """Hidden states of a real model share a large mean, and rows are long."""
    rows = batch([120] * 6)
    generator = torch.Generator().manual_seed(0)
    hidden = 3 + torch.randn(*rows.input_ids.shape, 64, generator=generator).double()
    _, saliency = drawn(rows, 1)
    exact = torch.cdist(
        hidden.flatten(1), hidden.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    expected = naive_loss(naive_divergences(saliency, rows), exact.numpy())
    found = Consistency("ratio")(view_of(rows, hidden.float(), saliency.float()))["cons"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3)


def test_equal_rows_leave_each_other_out(batch: MakeBatch) -> None:
    rows = batch([4, 4, 4])
    hidden, saliency = drawn(rows, 2)
    hidden[1] = hidden[0]
    distances = hidden_distances(hidden, rows.attention_mask)
    divergences = saliency_divergences(saliency, rows.explainable, rows.attention_mask)
    found = consistency_loss(divergences, distances)
    expected = divergences[0, 2] / distances[0, 2]
    assert found[0].item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_row_without_a_partner_has_no_loss(batch: MakeBatch) -> None:
    rows = batch([4])
    found = Consistency("ratio")(view_of(rows, *drawn(rows, 3)))["cons"]
    assert found.tolist() == [0.0]


def test_the_gradient_pulls_the_saliencies_of_rows_together(batch: MakeBatch) -> None:
    rows = batch([6, 6, 6])
    hidden, saliency = drawn(rows, 4)
    scores = saliency.clamp_min(1e-9).log().requires_grad_()
    masked = torch.where(rows.explainable, scores, -torch.inf)
    loss = Consistency("ratio")(view_of(rows, hidden, masked.softmax(-1))).total().sum()
    (slope,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(slope).all()
    moved = torch.where(rows.explainable, scores.detach() - 0.1 * slope, -torch.inf).softmax(-1)
    assert Consistency("ratio")(view_of(rows, hidden, moved)).total().sum() < loss


def test_the_gradient_in_the_hidden_states_is_the_difference_quotient(batch: MakeBatch) -> None:
    """It trains the backbone; a row's distance to itself must not turn it into NaN."""
    rows = batch([2, 3, 2])
    hidden, saliency = drawn(rows, 5)
    hidden[~rows.attention_mask] = 0

    def loss(states: Tensor) -> Tensor:
        return Consistency("ratio")(view_of(rows, states, saliency)).total()

    assert torch.autograd.gradcheck(loss, hidden.requires_grad_(), atol=1e-4)


@shapes
@settings(max_examples=30, deadline=None)
def test_the_metric_is_scipys_rho_over_unordered_pairs(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch([*lengths, 5], side)
    hidden, saliency = drawn(rows, seed)
    own = tokens_of(hidden, rows)
    divergences = naive_divergences(saliency, rows)
    x, y = [], []
    for i in range(len(own)):
        for j in range(i):
            x.append((divergences[i, j] + divergences[j, i]) / 2)
            y.append(naive_distance(own[i], own[j]))
    expected = scipy.stats.spearmanr(x, y).statistic
    view = view_of(rows, hidden, saliency)
    found = Consistency().metric(view)
    if len(set(x)) < len(x):  # rows of one token are all alike, up to rounding
        return
    np.testing.assert_allclose(found.numpy(), [expected] * len(rows), atol=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_the_metric_of_fewer_than_three_rows_is_undefined(count: int, batch: MakeBatch) -> None:
    rows = batch([3, 5][:count])
    hidden, saliency = drawn(rows, 6)
    distances = hidden_distances(hidden, rows.attention_mask)
    divergences = saliency_divergences(saliency, rows.explainable, rows.attention_mask)
    assert batch_consistency(divergences, distances) is None
    assert Consistency().metric(view_of(rows, hidden, saliency)).isnan().tolist() == [True] * count


def test_the_metric_of_constant_distances_is_undefined() -> None:
    constant = torch.ones(4, 4) - torch.eye(4)
    other = torch.arange(16.0).view(4, 4)
    assert batch_consistency(other, constant) is None
    assert batch_consistency(constant, other) is None
    assert batch_consistency(other, other + other.T) == pytest.approx(1)


def test_padding_and_its_side_change_nothing(batch: MakeBatch) -> None:
    losses = []
    for side in ("right", "left"):
        rows = batch([2, 7, 4], side)
        losses.append(Consistency("ratio")(view_of(rows, *drawn(rows, 7)))["cons"])
    torch.testing.assert_close(*losses)
    rows = batch([2, 7, 4, 20])
    hidden, saliency = drawn(rows, 7)
    narrow = replace(
        rows,
        **{
            name: value[:3]
            for name, value in vars(rows).items()
            if isinstance(value, Tensor | tuple)
        },
    )
    wide = Consistency("ratio")(view_of(narrow, hidden[:3], saliency[:3]))["cons"]
    torch.testing.assert_close(losses[0], wide)


@shapes
@settings(max_examples=30, deadline=None)
def test_l1_distances_are_the_loop_over_tokens_and_features(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch(lengths, side)
    hidden, saliency = drawn(rows, seed)
    own = tokens_of(hidden, rows)
    longest = max(map(len, own))
    padded = [np.pad(states, ((0, longest - len(states)), (0, 0))) for states in own]
    expected = [[sum(abs(x - y) for x, y in zip(a.flat, b.flat, strict=True)) for b in padded]
                for a in padded]  # fmt: skip
    found = hidden_distances(hidden, rows.attention_mask, "l1")
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    loss = Consistency("ratio", distance="l1")(view_of(rows, hidden, saliency))["cons"]
    by_hand = naive_loss(naive_divergences(saliency, rows), np.array(expected))
    np.testing.assert_allclose(loss.numpy(), by_hand, rtol=1e-6)


@pytest.mark.parametrize("form", ["ratio", "scale-free"])
@pytest.mark.parametrize("divergence", ["js", "fenchel-young"])
@pytest.mark.parametrize("normaliser", ["sparsemax", "entmax15"])
def test_other_divergences_take_the_place_of_kl(
    form: str, divergence: str, normaliser: str, batch: MakeBatch
) -> None:
    rows = batch([5, 2, 7, 4], "left")
    hidden, saliency = drawn(rows, 9)
    own, states = tokens_of(saliency, rows), tokens_of(hidden, rows)
    longest = max(map(len, own))
    padded = [np.pad(r, (0, longest - len(r))) for r in own]

    def naive(p: np.ndarray, q: np.ndarray) -> float:
        if divergence == "js":
            return float(scipy.spatial.distance.jensenshannon(p, q) ** 2)
        if normaliser == "sparsemax":
            return 0.5 * float(((p - q) ** 2).sum())
        return float((4 / 3 * p**1.5 + 2 / 3 * q**1.5 - 2 * p * np.sqrt(q)).sum())

    divergences = np.nan_to_num([[naive(p, q) for q in padded] for p in padded])
    distances = np.array([[naive_distance(a, b) for b in states] for a in states])
    expected = np.array(naive_loss(divergences, distances))
    if form == "scale-free":
        pairs = ~np.eye(4, dtype=bool)
        expected = expected / (divergences[pairs].mean() * (1 / (distances[pairs] + 1e-8)).mean())
    criterion = Consistency(form, divergence, normaliser=normaliser)
    found = criterion(view_of(rows, hidden, saliency))["cons"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@given(
    classes=st.lists(st.integers(0, 2), min_size=1, max_size=7),
    side=st.sampled_from(["right", "left"]),
    seed=st.integers(0, 500),
)
@settings(max_examples=40, deadline=None)
def test_clustering_is_the_nearest_of_the_class_less_the_farthest_of_the_others(
    classes: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch([2 + seed % 3 + place for place in range(len(classes))], side)
    hidden, saliency = drawn(rows, seed)
    own = tokens_of(saliency, rows)
    longest = max(map(len, own))
    padded = [np.pad(r, (0, longest - len(r))) for r in own]
    expected = []
    for i, mine in enumerate(classes):
        near = [((padded[i] - padded[j]) ** 2).sum() for j, c in enumerate(classes)
                if c == mine and j != i]  # fmt: skip
        far = [((padded[i] - padded[j]) ** 2).sum() for j, c in enumerate(classes) if c != mine]
        expected.append((min(near) if near else 0) - (max(far) if far else 0))
    logits = torch.nn.functional.one_hot(torch.tensor(classes), 3).double()
    view = replace(view_of(rows, hidden, saliency), logits=logits)
    found = Consistency("clustering")(view)["cons"]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    assert (found.abs() <= 2).all()


@pytest.mark.parametrize("form", ["ratio", "scale-free", "clustering"])
@pytest.mark.parametrize("divergence", ["kl", "js", "fenchel-young"])
def test_gradients_of_every_form_in_the_saliency_are_difference_quotients(
    form: str, divergence: str, batch: MakeBatch
) -> None:
    rows = batch([3, 5, 4, 4], "left")
    hidden, saliency = drawn(rows, 8)
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).double()
    for distance, normaliser in (("l2", "sparsemax"), ("l1", "entmax15")):
        criterion = Consistency(form, divergence, distance, normaliser=normaliser)

        def loss(scores: Tensor, criterion: Consistency = criterion) -> Tensor:
            r = torch.where(rows.explainable, scores, -torch.inf).softmax(-1)
            return criterion(replace(view_of(rows, hidden, r), logits=logits)).total()

        scores = saliency.clamp_min(1e-3).log().requires_grad_()
        assert torch.autograd.gradcheck(loss, scores, atol=1e-6)


def test_the_gradient_of_l1_in_the_hidden_states_is_finite_between_equal_rows(
    batch: MakeBatch,
) -> None:
    rows = batch([3, 3, 4])
    hidden, saliency = drawn(rows, 5)
    hidden[1] = hidden[0]
    hidden.requires_grad_()
    loss = Consistency(distance="l1")(view_of(rows, hidden, saliency)).total().sum()
    (slope,) = torch.autograd.grad(loss, hidden)
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0


@pytest.mark.parametrize("form", ["ratio", "scale-free", "clustering"])
@pytest.mark.parametrize("divergence", ["kl", "js", "fenchel-young"])
def test_half_precision_is_computed_in_float32(
    form: str, divergence: str, batch: MakeBatch
) -> None:
    rows = batch([3, 50, 40, 4])
    hidden, saliency = (values.half() for values in drawn(rows, 8))
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).double()
    criterion = Consistency(form, divergence, "l1", normaliser="sparsemax")
    found, exact = (
        criterion(replace(view_of(rows, h, r), logits=logits))["cons"]
        for h, r in ((hidden, saliency), (hidden.double(), saliency.double()))
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=2e-3, atol=1e-5)


def test_clustering_of_no_rows_keeps_the_graph() -> None:
    distances = torch.zeros(0, 0, requires_grad=True)
    found = clustering_loss(distances, torch.zeros(0, dtype=torch.long))
    assert found.shape == (0,)
    assert found.requires_grad


def test_clustering_draws_a_class_together_and_classes_apart(batch: MakeBatch) -> None:
    rows = batch([6, 6, 6, 6])
    hidden, saliency = drawn(rows, 4)
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]]).double()

    def distances(scores: Tensor) -> tuple[Tensor, Tensor]:
        r = torch.where(rows.explainable, scores, -torch.inf).softmax(-1)
        view = replace(view_of(rows, hidden, r), logits=logits)
        return Consistency("clustering")(view).total().sum(), torch.cdist(r, r)

    scores = saliency.clamp_min(1e-9).log().requires_grad_()
    loss, before = distances(scores)
    (slope,) = torch.autograd.grad(loss, scores)
    _, after = distances(scores.detach() - 0.2 * slope)
    assert after[0, 1] + after[2, 3] < before[0, 1] + before[2, 3]
    assert after[:2, 2:].max() > before[:2, 2:].max()


def test_only_consistency_asks_for_hidden_states() -> None:
    assert Consistency.needs_hidden
    assert Consistency.better == "higher"


@shapes
@settings(max_examples=25, deadline=None)
def test_the_scale_free_loss_is_the_mean_ratio_over_that_of_unrelated_pairs(
    lengths: list[int], side: str, seed: int, batch: MakeBatch
) -> None:
    rows = batch([*lengths, 5], side)
    hidden, saliency = drawn(rows, seed)
    own = tokens_of(hidden, rows)
    distances = np.array([[naive_distance(a, b) for b in own] for a in own])
    divergences = naive_divergences(saliency, rows)
    pairs = ~np.eye(len(rows), dtype=bool)
    unrelated = divergences[pairs].mean() * (1 / (distances[pairs] + 1e-8)).mean()
    expected = np.array(naive_loss(divergences, distances)) / unrelated
    found = Consistency()(view_of(rows, hidden, saliency))["cons"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_the_scale_free_loss_has_no_way_out_in_equal_explanations() -> None:
    """Divergences made ten times smaller change eq. 13 tenfold and the scale-free loss not."""
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(5, 5, generator=generator).double() + 1
    distances = (distances + distances.T).fill_diagonal_(0)
    divergences = torch.rand(5, 5, generator=generator).double().fill_diagonal_(0)
    small, large = (scale_free_consistency_loss(x * divergences, distances) for x in (0.1, 1))
    torch.testing.assert_close(small, large)
    assert (
        consistency_loss(0.1 * divergences, distances).sum() * 9.9
        < consistency_loss(divergences, distances).sum()
    )


def test_the_scale_free_loss_falls_when_far_rows_are_explained_more_differently() -> None:
    distances = torch.tensor([[0.0, 1, 4], [1, 0, 4], [4, 4, 0]], dtype=torch.float64)
    agreeing = scale_free_consistency_loss(distances.clone(), distances).mean()
    opposed = scale_free_consistency_loss((5 - distances).fill_diagonal_(0), distances).mean()
    assert agreeing < 1 < opposed
