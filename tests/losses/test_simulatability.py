"""The hypergradient of the scaffolded student against exact double backward."""

import copy
import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ivra.attention import InterpretableAttention, masked_softmax
from ivra.backbones import load_backbone
from ivra.data import Batch, builtin_rows, collate, encode_rows
from ivra.losses import (
    LookAhead,
    Setup,
    Simulatability,
    View,
    hypergradient_surrogate,
    kl_divergence,
)
from ivra.training import ScaffoldedStudent

RATE, BETA = 0.1, 5.0


class Reader(nn.Module):
    """A student as one module, so that it can be called with other parameters."""

    def __init__(self, student: ScaffoldedStudent) -> None:
        super().__init__()
        self.backbone = student.backbone
        self.module = student.module

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        encoding = self.backbone.encode(batch, self.module)
        saliency = self.module(encoding.readings, batch.explainable, encoding.predictions)
        return encoding.logits, saliency


@lru_cache
def _student() -> ScaffoldedStudent:
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=1).double()
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    module = InterpretableAttention(backbone.sizes, ("head", "layer")).double()
    items = encode_rows(builtin_rows("dev")[:12], backbone.tokenizer, ["negative", "positive"], 48)
    study = itertools.cycle([collate(items[:6], backbone.pad_id)])
    return ScaffoldedStudent(backbone, module, study, RATE, BETA)


@pytest.fixture
def student() -> ScaffoldedStudent:
    return copy.deepcopy(_student())


def nobody(_: object) -> Tensor:
    raise AssertionError("the student reruns nothing and asks for no other rows")


def view_of(batch: Batch, seed: int) -> View:
    """What a teacher with drawn predictions and a drawn saliency would show."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(batch), 2, generator=generator).double()
    scores = 2 * torch.randn(batch.explainable.shape, generator=generator).double()
    saliency = masked_softmax(scores, batch.explainable).requires_grad_()
    return View(batch, logits, saliency, None, nobody, nobody)


@pytest.fixture
def views(student: ScaffoldedStudent) -> tuple[View, View]:
    """Study rows and held-out rows."""
    items = encode_rows(
        builtin_rows("dev")[12:18], student.backbone.tokenizer, ["negative", "positive"], 48
    )
    return view_of(student.study_rows(), 1), view_of(collate(items, student.backbone.pad_id), 2)


def study_loss(logits: Tensor, own: Tensor, study: View) -> Tensor:
    """IvRA eq. 7: ``CE(S(x), y_hat) + beta KL(r, r*)``."""
    task = functional.cross_entropy(logits, study.predictions)
    return task + BETA * kl_divergence(study.saliency, own, study.explainable).mean()


def exact_hypergradient(student: ScaffoldedStudent, study: View, heldout: View) -> Tensor:
    """The held-out loss after one SGD step, differentiated through the step itself."""
    reader = Reader(student)
    parameters = dict(reader.named_parameters())
    with sdpa_kernel([SDPBackend.MATH]):
        loss = study_loss(*reader(study.batch), study)
        slopes = torch.autograd.grad(
            loss, list(parameters.values()), create_graph=True, allow_unused=True
        )
        moved = {
            name: value if slope is None else value - RATE * slope
            for (name, value), slope in zip(parameters.items(), slopes, strict=True)
        }
        logits, _ = functional_call(reader, moved, (heldout.batch,))
        outcome = functional.cross_entropy(logits, heldout.predictions)
        (found,) = torch.autograd.grad(outcome, study.saliency)
    return found


def surrogate_gradient(study: View, ahead: LookAhead) -> Tensor:
    loss = hypergradient_surrogate(study.saliency, study.explainable, ahead).mean()
    (found,) = torch.autograd.grad(loss, study.saliency)
    return found


def test_the_surrogates_gradient_is_that_of_double_backward(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    exact = exact_hypergradient(student, study, heldout)
    found = surrogate_gradient(study, student.look_ahead(study, heldout))
    mask = study.explainable
    assert exact[mask].abs().max() > 1e-5, "a gradient of nothing proves nothing"
    assert (found[~mask] == 0).all()
    cosine = functional.cosine_similarity(found[mask], exact[mask], dim=0)
    assert cosine > 0.9999
    assert (found[mask] - exact[mask]).norm() / exact[mask].norm() < 1e-3


def test_the_gradient_is_independent_of_the_size_of_its_factors(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    """``rate * beta * norm / (2 step)`` enters once each."""
    study, heldout = views
    ahead = student.look_ahead(study, heldout)
    base = surrogate_gradient(study, ahead)
    for name, share in (("rate", 3.0), ("beta", 3.0), ("norm", 3.0), ("step", 1 / 3)):
        other = ahead._replace(**{name: share * getattr(ahead, name)})
        torch.testing.assert_close(surrogate_gradient(study, other), 3 * base)


def test_a_look_ahead_reports_the_held_out_loss_after_the_pilot_step(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    ahead = student.look_ahead(study, heldout)
    twin = copy.deepcopy(student)
    optimizer = torch.optim.SGD([*twin.backbone.parameters(), *twin.module.parameters()], lr=RATE)
    study_loss(*Reader(twin)(study.batch), replace_saliency(study)).backward()
    optimizer.step()
    logits = twin.backbone.encode(heldout.batch).logits
    expected = functional.cross_entropy(logits, heldout.predictions, reduction="none")
    torch.testing.assert_close(ahead.loss, expected.detach())
    assert not ahead.loss.requires_grad
    optimizer.zero_grad()
    expected.mean().backward()
    slopes = [p.grad for p in twin.backbone.parameters() if p.grad is not None]
    norm = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt().item()
    assert ahead.norm == pytest.approx(norm, rel=1e-6)
    assert (ahead.rate, ahead.beta) == (RATE, BETA)


def replace_saliency(view: View) -> View:
    return replace(view, saliency=view.saliency.detach())


def parameters_of(student: ScaffoldedStudent) -> list[Tensor]:
    return [
        p.detach().clone() for p in (*student.backbone.parameters(), *student.module.parameters())
    ]


def test_a_look_ahead_leaves_the_student_as_it_was_to_the_bit(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    before = parameters_of(student)
    ahead = student.look_ahead(*views)
    assert ahead.norm > 0
    assert not torch.equal(ahead.forward, ahead.backward)
    for old, new in zip(before, parameters_of(student), strict=True):
        assert torch.equal(old, new)


def test_an_interrupted_look_ahead_leaves_the_student_as_it_was(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    beyond = heldout.batch.input_ids + len(student.backbone.tokenizer)
    broken = replace(heldout, batch=replace(heldout.batch, input_ids=beyond))
    before = parameters_of(student)
    with pytest.raises(IndexError):
        student.look_ahead(study, broken)
    for old, new in zip(before, parameters_of(student), strict=True):
        assert torch.equal(old, new)


def test_practice_is_one_step_of_sgd_and_lowers_its_loss(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study = replace_saliency(views[0])
    student.rate = 0.01
    twin = copy.deepcopy(student)
    optimizer = torch.optim.SGD([*twin.backbone.parameters(), *twin.module.parameters()], lr=0.01)
    before = study_loss(*Reader(twin)(study.batch), study)
    before.backward()
    optimizer.step()
    student.practise(study)
    for found, expected in zip(parameters_of(student), parameters_of(twin), strict=True):
        torch.testing.assert_close(found, expected)
    losses = [before.item()]
    for _ in range(5):
        with torch.no_grad():
            losses.append(study_loss(*Reader(student)(study.batch), study).item())
        student.practise(study)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.98 * losses[0]


def test_practice_gives_no_gradient_to_the_teacher(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    student.practise(study)
    student.look_ahead(study, heldout)
    assert study.saliency.grad is None
    assert heldout.saliency.grad is None


def test_agreement_is_one_where_both_predict_the_same(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    _, heldout = views
    own = student.backbone.encode(heldout.batch).logits.detach()
    flipped = own.clone()
    flipped[:2] = flipped[:2].flip(-1)
    found = student.agrees(replace(heldout, logits=flipped))
    assert found.tolist() == [0, 0, 1, 1, 1, 1]


def test_the_criterion_is_the_held_out_loss_with_the_hypergradient_of_the_study_rows(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    twin = copy.deepcopy(student)
    asked: list[Batch] = []

    def on(batch: Batch) -> View:
        asked.append(batch)
        return study

    criterion = Simulatability.build(Setup(0, (1.0,), "straight-through", lambda: student))
    view = replace(heldout, on=on)
    criterion.inner_step(view)
    terms = criterion(view)
    assert list(terms) == ["sim"]
    assert asked == [study.batch], "the pilot step is on the rows that were just practised"

    twin.practise(study)
    ahead = twin.look_ahead(study, heldout)
    torch.testing.assert_close(terms["sim"].detach(), ahead.loss)
    terms.total().mean().backward()
    assert study.saliency.grad is not None
    torch.testing.assert_close(study.saliency.grad, surrogate_gradient(study, ahead))
    assert heldout.saliency.grad is None, "a student is not shown the held-out explanation"
    np.testing.assert_array_equal(criterion.metric(view), student.agrees(view))
    assert Simulatability.better == "higher"


def test_without_an_inner_step_the_criterion_takes_study_rows_itself(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    found = Simulatability(student)(replace(heldout, on=lambda batch: study))
    expected = student.look_ahead(study, heldout).loss
    torch.testing.assert_close(found["sim"].detach(), expected)
