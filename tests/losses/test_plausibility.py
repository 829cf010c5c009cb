"""Plausibility as a criterion: every form against loops, scikit-learn and difference quotients."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor
from torch.autograd import gradcheck

from ivra.data import Batch
from ivra.losses import Plausibility, View, plausibility_loss, row_auc
from ivra.losses.plausibility import PlausibilityForm

FORMS = get_args(PlausibilityForm)
MakeBatch = Callable[..., Batch]
MakeView = Callable[[Batch, Tensor, Tensor], View]


def naive(r: list[float], marks: list[bool], form: str) -> float:
    """Of the explainable tokens of one row."""
    n, count = len(r), sum(marks)
    if count == 0:
        return 0.0
    human = [mark / count for mark in marks]
    even = [(1 - 1e-4) * p + 1e-4 / n for p in r]
    if form == "kl":
        target = [(1 - 1e-4) * p + 1e-4 / n for p in human]
        return sum(h * math.log(h / p) for h, p in zip(target, even, strict=True))
    if form == "mae":
        return sum(abs(h - p) for h, p in zip(human, r, strict=True)) / n
    logistic = [1 / (1 + math.exp(-(math.log(p) - math.log(1 / n)))) for p in even]
    return log_loss(marks, logistic, labels=[False, True])


def drawn(lengths: list[int], seed: int, sparse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Saliencies, marks (loud on tokens that are not explainable) and the explainable tokens."""
    rng = np.random.default_rng(seed)
    width = max(lengths) + 2
    explainable = np.zeros((len(lengths), width), dtype=bool)
    for row, length in enumerate(lengths):
        explainable[row, rng.permutation(width)[:length]] = True
    values = rng.exponential(size=explainable.shape) * explainable
    if sparse:
        values = values * (values >= np.median(values, -1, keepdims=True))
    values /= values.sum(-1, keepdims=True)
    marks = (rng.random(explainable.shape) < 0.4) | ~explainable
    return torch.tensor(values), torch.tensor(marks), torch.tensor(explainable)


rows = given(
    lengths=st.lists(st.integers(1, 15), min_size=1, max_size=4),
    seed=st.integers(0, 9999),
    sparse=st.booleans(),
)


@pytest.mark.parametrize("form", FORMS)
@rows
@settings(max_examples=40, deadline=None)
def test_every_form_is_the_loop_over_tokens(
    form: str, lengths: list[int], seed: int, sparse: bool
) -> None:
    saliency, marks, explainable = drawn(lengths, seed, sparse)
    found = plausibility_loss(saliency, marks, explainable, form)
    expected = [
        naive(r[e].tolist(), m[e].tolist(), form)
        for r, m, e in zip(saliency, marks, explainable, strict=True)
    ]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    assert (found >= -1e-12).all()


@rows
@settings(max_examples=60, deadline=None)
def test_the_metric_is_scikit_learns_auc(lengths: list[int], seed: int, sparse: bool) -> None:
    """Sparse saliencies have many ties."""
    saliency, marks, explainable = drawn(lengths, seed, sparse)
    found = row_auc(saliency, marks, explainable)
    for value, r, m, e in zip(found.tolist(), saliency, marks, explainable, strict=True):
        if m[e].all() or not m[e].any():
            assert math.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(m[e].numpy(), r[e].numpy()), abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_the_difference_quotient(form: str) -> None:
    saliency, marks, explainable = drawn([6, 3, 9], seed=1, sparse=False)

    def loss(r: Tensor) -> Tensor:
        return plausibility_loss(r, marks, explainable, form)

    assert gradcheck(loss, (saliency.requires_grad_(),))


@pytest.mark.parametrize("form", FORMS)
def test_a_saliency_that_is_the_rationale_is_best(form: str) -> None:
    """Among uniform, the rationale itself and its opposite."""
    marks = torch.tensor([[True, True, False, False, False]] * 3)
    saliency = torch.tensor([[0.5, 0.5, 0, 0, 0], [0.2] * 5, [0, 0, 1 / 3, 1 / 3, 1 / 3]]).double()
    best, uniform, worst = plausibility_loss(saliency, marks, torch.ones_like(marks), form).tolist()
    assert best < uniform < worst
    if form != "bce":
        assert best == pytest.approx(0, abs=1e-12)


def view_of(
    batch: MakeBatch, view: MakeView, annotated: list[bool], marks: list[int]
) -> tuple[View, Tensor]:
    """Rows of four tokens, of which the first ``marks`` are the rationale."""
    made = batch([4] * len(marks))
    rationale = torch.zeros_like(made.explainable)
    for row, count in enumerate(marks):
        rationale[row, 1 : 1 + count] = True
    made = replace(made, rationale=rationale, annotated=torch.tensor(annotated))
    scores = torch.zeros(made.explainable.shape, dtype=torch.float64)
    scores[:, 1] = 1.0
    scores.requires_grad_()
    saliency = torch.where(made.explainable, scores, -torch.inf).softmax(-1)
    return view(made, torch.zeros_like(scores), saliency), scores


@pytest.mark.parametrize("form", FORMS)
def test_rows_without_a_rationale_contribute_nothing(
    form: str, batch: MakeBatch, evidence_view: MakeView
) -> None:
    """Not annotated, annotated without a mark; the others as if they were alone."""
    view, scores = view_of(batch, evidence_view, [True, False, True], [2, 2, 0])
    losses = Plausibility(form)(view)["plaus"]
    (slope,) = torch.autograd.grad(losses.sum(), scores)
    alone, _ = view_of(batch, evidence_view, [True], [2])
    assert losses[0].item() == Plausibility(form)(alone)["plaus"].item() > 0
    assert losses[1:].tolist() == [0, 0]
    assert slope[0].abs().sum() > 0
    assert (slope[1:] == 0).all()
    metric = Plausibility(form).metric(view)
    assert metric.isnan().tolist() == [False, True, True]
    assert metric[0].item() == pytest.approx(0.75)  # first of four, tied in second place with two


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_any_rationale_keeps_the_graph(
    form: str, batch: MakeBatch, evidence_view: MakeView
) -> None:
    view, scores = view_of(batch, evidence_view, [False, True], [3, 0])
    loss = Plausibility(form)(view).total().mean()
    assert loss.item() == 0
    (slope,) = torch.autograd.grad(loss, scores)
    assert (slope == 0).all()


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_computed_in_float32(form: str) -> None:
    saliency, marks, explainable = drawn([6, 3, 9], seed=2, sparse=False)
    half = saliency.half()
    found = plausibility_loss(half, marks, explainable, form)
    assert found.dtype == torch.float32
    exact = plausibility_loss(half.double(), marks, explainable, form)
    np.testing.assert_allclose(found.numpy(), exact.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_row_of_one_token_and_one_marked_throughout_are_finite(form: str) -> None:
    saliency = torch.tensor([[1.0, 0.0, 0.0], [0.2, 0.3, 0.5]], requires_grad=True)
    explainable = torch.tensor([[True, False, False], [True, True, True]])
    losses = plausibility_loss(saliency, explainable, explainable, form)
    (slope,) = torch.autograd.grad(losses.sum(), saliency)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(slope).all()
    assert row_auc(saliency, explainable, explainable).isnan().all()
