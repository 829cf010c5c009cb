"""Comprehensiveness and sufficiency: margins by hand, signs of gradients, AOPC by loops."""

import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from torch import Tensor
from torch.autograd import gradcheck

from ivra.data import Batch
from ivra.losses import (
    AOPC_BINS,
    TOPK_GRADIENTS,
    Comprehensiveness,
    Setup,
    Sufficiency,
    View,
    comprehensiveness_loss,
    probability_of,
    sufficiency_loss,
)
from ivra.losses.removal import RemovalForm

MakeBatch = Callable[..., Batch]
MakeView = Callable[[Batch, Tensor, Tensor], View]


def with_entropy(value: float) -> Tensor:
    """Logits of three classes in which the cross-entropy with the first is ``value`` nats."""
    share = math.exp(-value)
    return torch.tensor([[share, (1 - share) * 0.6, (1 - share) * 0.4]], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("full", "without", "expected"),
    [
        (0.2, 0.9, 0.3),  # 0.7 nats of 1 reached
        (0.2, 1.2, 0.0),  # just reached
        (0.2, 3.0, 0.0),  # passed: no reward for more
        (0.2, 0.2, 1.0),
        (0.2, 0.1, 1.1),  # better without: worse than the margin
    ],
)
def test_comprehensiveness_by_hand(full: float, without: float, expected: float) -> None:
    found = comprehensiveness_loss(with_entropy(full), with_entropy(without)).item()
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("full", "only", "expected"),
    [
        (0.2, 0.25, 0.15),
        (0.2, 0.2, 0.1),
        (0.2, 0.15, 0.05),
        (0.2, 0.1, 0.0),  # just 0.1 nats better
        (0.2, 0.01, 0.0),
        (0.2, 5.2, 5.1),
    ],
)
def test_sufficiency_by_hand(full: float, only: float, expected: float) -> None:
    found = sufficiency_loss(with_entropy(full), with_entropy(only)).item()
    assert found == pytest.approx(expected, abs=1e-12)


def naive_change(full: np.ndarray, reduced: np.ndarray, form: str) -> float:
    """Of one row, from probabilities."""
    p, q = softmax(full), softmax(reduced)
    if form == "kl":
        return sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    label = int(np.argmax(full))
    if form == "probability":
        return float(p[label] - q[label])
    change = -math.log(q[label]) + math.log(p[label])
    return abs(change) if form == "absolute" else change


logits = st.lists(st.floats(-8, 8), min_size=3, max_size=3)


@given(rows=st.lists(st.tuples(logits, logits), min_size=1, max_size=4), margin=st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_form_is_its_equation_row_by_row(
    rows: list[tuple[list[float], list[float]]], margin: float
) -> None:
    full, reduced = (torch.tensor(part, dtype=torch.float64) for part in zip(*rows, strict=True))
    for form in get_args(RemovalForm):
        comp = comprehensiveness_loss(full, reduced, form, margin).tolist()
        suff = sufficiency_loss(full, reduced, form, margin).tolist()
        changes = [naive_change(np.array(a), np.array(b), form) for a, b in rows]
        for change, c, s in zip(changes, comp, suff, strict=True):
            if form == "margin":
                assert c == pytest.approx(margin + max(-margin, -change), abs=1e-9)
                assert s == pytest.approx(margin + max(-margin, change), abs=1e-9)
                assert c >= 0
                assert s >= 0
            else:
                assert (c, s) == pytest.approx((-change, change), abs=1e-9)
            if form == "absolute":
                assert s >= 0


@pytest.mark.parametrize("form", get_args(RemovalForm))
@pytest.mark.parametrize("loss", [comprehensiveness_loss, sufficiency_loss])
def test_the_gradient_of_every_form_is_the_difference_quotient(
    loss: Callable[..., Tensor], form: str
) -> None:
    generator = torch.Generator().manual_seed(3)
    full, reduced = (torch.randn(6, 4, generator=generator).double() for _ in range(2))
    inputs = (full.requires_grad_(), reduced.requires_grad_())
    assert gradcheck(lambda a, b: loss(a, b, form, 0.4), inputs)


def test_half_precision_is_computed_in_float32() -> None:
    full, reduced = torch.tensor([[9.0, 0.0]]).bfloat16(), torch.tensor([[8.0, 0.0]]).bfloat16()
    for form in get_args(RemovalForm):
        found = sufficiency_loss(full, reduced, form)
        assert found.dtype == torch.float32
        exact = sufficiency_loss(full.double(), reduced.double(), form)
        assert found.item() == pytest.approx(exact.item(), rel=1e-3)


def test_the_papers_margins_are_the_defaults() -> None:
    assert (Comprehensiveness().form, Comprehensiveness().margin) == ("margin", 1.0)
    assert (Sufficiency().form, Sufficiency().margin) == ("margin", 0.1)


LENGTH = 5
EVIDENCE = [0.0, 0.5, 0.3, -0.2, 0.1, 0.0, 0.0]
"""Of [CLS], five tokens and [SEP]: the class is 1, and token 3 speaks against it."""
SALIENCY = [0.0, 0.3, 0.1, 0.25, 0.2, 0.15, 0.0]


def graded(
    criterion: Comprehensiveness | Sufficiency, batch: MakeBatch, evidence_view: MakeView
) -> tuple[float, Tensor]:
    """The loss of the row above and its gradient in the saliency."""
    saliency = torch.tensor([SALIENCY], dtype=torch.float64, requires_grad=True)
    evidence = torch.tensor([EVIDENCE], dtype=torch.float64)
    view = evidence_view(batch([LENGTH]), evidence, saliency)
    terms = criterion(view)
    assert list(terms) == [criterion.name]
    (loss,) = terms.total()
    loss.backward()
    assert saliency.grad is not None
    return loss.item(), saliency.grad[0]


def cross_entropy(evidence: float) -> float:
    """Of class 1 at logits 0 and ``evidence``."""
    return math.log1p(math.exp(-evidence))


@pytest.mark.parametrize("gradient", ["straight-through", "sigmoid"])
def test_raising_the_saliency_of_a_needed_token_lowers_comprehensiveness(
    gradient: str, batch: MakeBatch, evidence_view: MakeView
) -> None:
    """40% are tokens 1 and 3. Without them evidence 0.4 is left of 0.7."""
    criterion = Comprehensiveness(bins=(40.0,), gradient=gradient)
    loss, slope = graded(criterion, batch, evidence_view)
    assert loss == pytest.approx(1 + cross_entropy(0.7) - cross_entropy(0.4))
    needed, against = [1, 2, 4], 3
    assert (slope[needed] < 0).all()
    assert slope[against] > 0
    assert slope[5] == 0, "a token without evidence"
    if gradient == "straight-through":
        np.testing.assert_allclose(slope.numpy(), -expit(-0.4) * np.array(EVIDENCE), rtol=1e-12)


@pytest.mark.parametrize("gradient", ["straight-through", "sigmoid"])
def test_raising_the_saliency_of_a_needed_token_lowers_sufficiency(
    gradient: str, batch: MakeBatch, evidence_view: MakeView
) -> None:
    """40% are tokens 1 and 3, which alone have evidence 0.3 of 0.7."""
    criterion = Sufficiency(bins=(40.0,), gradient=gradient)
    loss, slope = graded(criterion, batch, evidence_view)
    assert loss == pytest.approx(0.1 + cross_entropy(0.3) - cross_entropy(0.7))
    assert (slope[[1, 2, 4]] < 0).all()
    assert slope[3] > 0
    assert slope[5] == 0
    if gradient == "straight-through":
        np.testing.assert_allclose(slope.numpy(), -expit(-0.3) * np.array(EVIDENCE), rtol=1e-12)


@pytest.mark.parametrize("gradient", ["entropic", "perturbed", "sampled"])
@pytest.mark.parametrize("kind", [Comprehensiveness, Sufficiency])
def test_where_what_one_token_gains_others_lose_the_best_gains_and_the_worst_loses(
    kind: type[Comprehensiveness] | type[Sufficiency],
    gradient: str,
    batch: MakeBatch,
    evidence_view: MakeView,
) -> None:
    criterion = kind(samples=4000, bins=(40.0,), gradient=gradient)
    _, slope = graded(criterion, batch, evidence_view)
    in_scores = slope * torch.tensor(SALIENCY, dtype=torch.float64)
    assert in_scores[1] < 0
    assert in_scores[3] > 0
    assert in_scores[[0, 6]].tolist() == [0, 0]
    assert in_scores.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gradient", TOPK_GRADIENTS)
@pytest.mark.parametrize("kind", [Comprehensiveness, Sufficiency])
def test_a_step_down_the_gradient_lowers_the_loss_once_a_token_changes_sides(
    kind: type[Comprehensiveness] | type[Sufficiency],
    gradient: str,
    batch: MakeBatch,
    evidence_view: MakeView,
) -> None:
    criterion = kind(bins=(40.0,), gradient=gradient)
    scores = torch.tensor([SALIENCY], dtype=torch.float64).clamp_min(1e-9).log()
    scores.requires_grad_()
    evidence = torch.tensor([EVIDENCE], dtype=torch.float64)
    rows = batch([LENGTH])
    losses = []
    for _ in range(30):
        saliency = torch.where(rows.explainable, scores, -torch.inf).softmax(-1)
        loss = criterion(evidence_view(rows, evidence, saliency)).total().sum()
        losses.append(loss.item())
        (slope,) = torch.autograd.grad(loss, scores)
        scores = (scores.detach() - 5 * slope).requires_grad_()
    top = torch.where(rows.explainable, scores, -torch.inf)[0].topk(2).indices.tolist()
    assert 1 in top, "the token with the most evidence"
    assert 3 not in top, "the token that speaks against the prediction"
    assert losses[-1] == min(losses) < losses[0]


def test_no_gradient_is_left_once_the_margin_is_reached(
    batch: MakeBatch, evidence_view: MakeView
) -> None:
    loss, slope = graded(Comprehensiveness(margin=0.01, bins=(40.0,)), batch, evidence_view)
    assert loss == 0
    assert (slope == 0).all()


def naive_aopc(
    evidence: np.ndarray, saliency: np.ndarray, mask: np.ndarray, keep_top: bool
) -> float:
    """Row by row, bin by bin, from sums of evidence alone."""
    label = int(evidence.sum() > 0)

    def probability(total: float) -> float:
        return expit(total) if label else expit(-total)

    allowed = np.flatnonzero(mask)
    ranked = sorted(allowed, key=lambda place: (-saliency[place], place))
    drops = []
    for percent in AOPC_BINS:
        top = set(ranked[: max(1, math.ceil(len(allowed) * percent / 100 - 1e-9))])
        kept = [p for p in range(len(mask)) if not mask[p] or (p in top) == keep_top]
        drops.append(probability(evidence.sum()) - probability(evidence[kept].sum()))
    return float(np.mean(drops))


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_metrics_are_aopc_by_loops(
    lengths: list[int], seed: int, batch: MakeBatch, evidence_view: MakeView
) -> None:
    rows = batch(lengths)
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randn(rows.explainable.shape, generator=generator).double()
    evidence = evidence * rows.attention_mask
    scores = torch.randn(rows.explainable.shape, generator=generator).double()
    saliency = torch.where(rows.explainable, scores, -torch.inf).softmax(-1)
    view = evidence_view(rows, evidence, saliency)
    for criterion, keep_top in ((Comprehensiveness(), False), (Sufficiency(), True)):
        expected = [
            naive_aopc(e, s, m, keep_top)
            for e, s, m in zip(
                evidence.numpy(), saliency.numpy(), rows.explainable.numpy(), strict=True
            )
        ]
        np.testing.assert_allclose(criterion.metric(view).numpy(), expected, atol=1e-12)
    assert (Comprehensiveness.better, Sufficiency.better) == ("higher", "lower")


@pytest.mark.parametrize("kind", [Comprehensiveness, Sufficiency])
def test_a_step_draws_one_of_the_bins_in_an_order_fixed_by_the_seed(
    kind: type[Comprehensiveness] | type[Sufficiency],
    batch: MakeBatch,
    evidence_view: MakeView,
) -> None:
    def losses(seed: int) -> list[float]:
        def none() -> None:
            raise AssertionError("no student is asked for")

        criterion = kind.build(Setup(seed, (20.0, 60.0), "straight-through", none))
        saliency = torch.tensor([SALIENCY], dtype=torch.float64)
        view = evidence_view(batch([LENGTH]), torch.tensor([EVIDENCE]).double(), saliency)
        return [criterion(view).total().item() for _ in range(12)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    assert len(set(losses(1))) == 2


def per_step(bins_mode: str, batch: MakeBatch, evidence_view: MakeView) -> list[float]:
    """Losses of seven steps at 20, 60 and 100 percent."""
    criterion = Sufficiency("difference", bins_mode=bins_mode, bins=(20.0, 60.0, 100.0))
    saliency = torch.tensor([SALIENCY], dtype=torch.float64)
    view = evidence_view(batch([LENGTH]), torch.tensor([EVIDENCE], dtype=torch.float64), saliency)
    return [criterion(view).total().item() for _ in range(7)]


def test_bins_are_drawn_cycled_or_averaged(batch: MakeBatch, evidence_view: MakeView) -> None:
    """At 20% token 1 (evidence 0.5) is left, at 60% 1, 3 and 4 (0.4), at 100% everything."""
    at = [cross_entropy(left) - cross_entropy(0.7) for left in (0.5, 0.4, 0.7)]
    cycled = per_step("cycle", batch, evidence_view)
    assert cycled == pytest.approx([*at, *at, at[0]], abs=1e-9)
    assert per_step("mean", batch, evidence_view) == pytest.approx([sum(at) / 3] * 7, abs=1e-9)
    for loss in per_step("draw", batch, evidence_view):
        assert min(abs(loss - value) for value in at) < 1e-9


def test_a_probability_is_the_softmax_at_its_class() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(9), 0.0]]).double()
    found = probability_of(logits, torch.tensor([1, 1]))
    np.testing.assert_allclose(found.numpy(), [0.75, 0.1])
