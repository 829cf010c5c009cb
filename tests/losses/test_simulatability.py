"""The hypergradient of the scaffolded student against exact double backward, and the loss of the
guided one against differences and its own plain forward."""

import copy
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ivra.attention import InterpretableAttention, masked_softmax
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, builtin_rows, collate, encode_rows
from ivra.losses import (
    LookAhead,
    Plan,
    Setup,
    Simulatability,
    View,
    entropy_share,
    fixed_sharpness,
    hypergradient_surrogate,
    kl_divergence,
)
from ivra.training import Endless, ScaffoldedStudent, StudentsInTurn, endless

RATE, BETA = 0.1, 5.0
PLAIN = Plan(scale_free=False, fixed_length=False)


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
    batch = collate(items[:6], backbone.pad_id)
    study = endless(lambda _: iter([batch]))
    return ScaffoldedStudent(
        lambda number: (backbone, module), lambda _: study, RATE, BETA, life=10**6
    )


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


def exact_hypergradient(
    student: ScaffoldedStudent, study: View, heldout: View, *, fixed_length: bool = False
) -> Tensor:
    """The held-out loss after one SGD step, differentiated through the step itself.

    With ``fixed_length`` the gradient ``g`` of the divergence enters the step as ``|g|`` (a
    constant) times ``g / |g|``.
    """
    reader = Reader(student)
    parameters = dict(reader.named_parameters())
    with sdpa_kernel([SDPBackend.MATH]):
        logits, own = reader(study.batch)
        task = functional.cross_entropy(logits, study.predictions)
        guide = BETA * kl_divergence(study.saliency, own, study.explainable).mean()
        slopes, guides = (
            torch.autograd.grad(
                loss,
                list(parameters.values()),
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for loss in (task, guide)
        )
        if fixed_length:
            length = torch.stack([g.square().sum() for g in guides]).sum().sqrt()
            guides = tuple(g / length * length.detach() for g in guides)
        steps = [t + g for t, g in zip(slopes, guides, strict=True)]
        norm = torch.stack([s.detach().square().sum() for s in steps]).sum().sqrt()
        rate = RATE * min(1.0, 1.0 / float(norm))
        moved = {
            name: value - rate * step
            for (name, value), step in zip(parameters.items(), steps, strict=True)
        }
        logits, _ = functional_call(reader, moved, (heldout.batch,))
        outcome = functional.cross_entropy(logits, heldout.predictions)
        (found,) = torch.autograd.grad(outcome, study.saliency)
    return found


def surrogate_gradient(study: View, ahead: LookAhead) -> Tensor:
    loss = hypergradient_surrogate(study.saliency, study.explainable, ahead).mean()
    (found,) = torch.autograd.grad(loss, study.saliency)
    return found


@pytest.mark.parametrize("fixed_length", [False, True])
@pytest.mark.parametrize(
    ("method", "error"), [("central-difference", 1e-3), ("exact", 1e-9)], ids=str
)
def test_the_surrogates_gradient_is_that_of_the_step_differentiated_whole(
    student: ScaffoldedStudent,
    views: tuple[View, View],
    method: Literal["central-difference", "exact"],
    error: float,
    fixed_length: bool,
) -> None:
    study, heldout = views
    exact = exact_hypergradient(student, study, heldout, fixed_length=fixed_length)
    plan = PLAIN._replace(fixed_length=fixed_length, method=method)
    found = surrogate_gradient(study, student.look_ahead(study, heldout, plan))
    mask = study.explainable
    assert exact[mask].abs().max() > 1e-5, "a gradient of nothing proves nothing"
    assert (found[~mask] == 0).all()
    assert functional.cosine_similarity(found[mask], exact[mask], dim=0) > 1 - error
    assert (found[mask] - exact[mask]).norm() / exact[mask].norm() < error


def test_a_fixed_length_is_another_gradient(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    free, fixed = (exact_hypergradient(student, *views, fixed_length=on) for on in (False, True))
    mask = views[0].explainable
    assert functional.cosine_similarity(free[mask], fixed[mask], dim=0) < 0.999


def test_the_gradient_is_proportional_to_its_factors(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    ahead = student.look_ahead(study, heldout, PLAIN)
    base = surrogate_gradient(study, ahead)
    for other in (
        ahead._replace(rate=3 * ahead.rate),
        ahead._replace(beta=3 * ahead.beta),
        ahead._replace(slope=3 * ahead.slope),
    ):
        torch.testing.assert_close(surrogate_gradient(study, other), 3 * base)


def test_the_slope_is_the_derivative_of_the_students_saliency_along_its_loss(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    exact = student.look_ahead(study, heldout, PLAIN._replace(method="exact"))
    near = student.look_ahead(study, heldout, PLAIN)
    torch.testing.assert_close(near.slope, exact.slope, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(near.saliency, exact.saliency, rtol=1e-2, atol=1e-4)
    assert exact.slope.sum(-1).abs().max() < 1e-9, "a saliency sums to 1 wherever it moves"
    reader = Reader(student)
    with torch.no_grad():
        torch.testing.assert_close(exact.saliency, reader(study.batch)[1])


def test_quantised_weights_take_the_central_difference_and_say_so(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    expected = student.look_ahead(*views, PLAIN).slope
    student.backbone.model.is_quantized = True
    with pytest.warns(UserWarning, match="central-difference instead of exact"):
        found = student.look_ahead(*views, PLAIN._replace(method="exact"))
    assert torch.equal(found.slope, expected)


def test_without_a_pilot_step_the_loss_is_that_of_the_student_as_it_is(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    ahead = student.look_ahead(study, heldout, Plan(pilot=False))
    logits = student.backbone.encode(heldout.batch).logits
    expected = functional.cross_entropy(logits, heldout.predictions, reduction="none")
    torch.testing.assert_close(ahead.loss, expected.detach())
    assert not torch.equal(ahead.loss, student.look_ahead(study, heldout, PLAIN).loss)


def test_a_look_ahead_reports_the_held_out_loss_after_the_pilot_step(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    ahead = student.look_ahead(study, heldout, PLAIN)
    twin = copy.deepcopy(student)
    parameters = [*twin.backbone.parameters(), *twin.module.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE)
    study_loss(*Reader(twin)(study.batch), replace_saliency(study)).backward()
    norm = float(nn.utils.clip_grad_norm_(parameters, 1.0))
    optimizer.step()
    logits = twin.backbone.encode(heldout.batch).logits
    expected = functional.cross_entropy(logits, heldout.predictions, reduction="none")
    torch.testing.assert_close(ahead.loss, expected.detach())
    assert not ahead.loss.requires_grad
    assert ahead.rate == pytest.approx(RATE * min(1.0, 1 / norm))
    assert ahead.beta == BETA


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
    ahead = student.look_ahead(*views, Plan())
    assert ahead.slope.abs().max() > 0
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
        student.look_ahead(study, broken, PLAIN)
    for old, new in zip(before, parameters_of(student), strict=True):
        assert torch.equal(old, new)


def test_practice_is_one_step_of_adamw_and_lowers_its_loss(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, rate = replace_saliency(views[0]), 1e-4
    twin = copy.deepcopy(student)
    both = (student.backbone, student.module)
    student = ScaffoldedStudent(
        lambda _: both, lambda _: endless(lambda _: iter([study.batch])), rate, BETA, 10
    )
    parameters = [*twin.backbone.parameters(), *twin.module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = study_loss(*Reader(twin)(study.batch), study)
        losses.append(loss.item())
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        student.practise(study)
    for found, expected in zip(parameters_of(student), parameters_of(twin), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert losses[-1] < losses[0]


def test_a_fresh_student_takes_over_when_the_old_ones_time_is_up(
    views: tuple[View, View],
) -> None:
    made: list[int] = []

    def fresh(number: int) -> tuple[Backbone, InterpretableAttention]:
        made.append(number)
        backbone = load_backbone("tiny-electra", ("no", "yes"), seed=number).double()
        return backbone, InterpretableAttention(backbone.sizes, ("head", "layer")).double()

    study = replace_saliency(views[0])
    student = ScaffoldedStudent(
        fresh, lambda _: endless(lambda _: iter([study.batch])), RATE, BETA, life=2
    )
    firsts = [parameters_of(student)[0]]
    for _ in range(5):
        student.practise(study)
        firsts.append(parameters_of(student)[0])
    assert made == [0, 1, 2], "after two steps each"
    assert len({float(first.sum()) for first in firsts}) == 6


def test_a_student_that_begins_aged_gives_way_earlier(views: tuple[View, View]) -> None:
    made: list[int] = []

    def fresh(number: int) -> tuple[Backbone, InterpretableAttention]:
        made.append(number)
        backbone = load_backbone("tiny-electra", ("no", "yes"), seed=number).double()
        return backbone, InterpretableAttention(backbone.sizes, ("head", "layer")).double()

    study = replace_saliency(views[0])
    student = ScaffoldedStudent(
        fresh, lambda _: endless(lambda _: iter([study.batch])), RATE, BETA, life=3, age=2
    )
    made_after = []
    for _ in range(5):
        student.practise(study)
        made_after.append(len(made))
    assert made_after == [1, 2, 2, 2, 3], "a first life of one step, then whole ones of three"


def test_the_rate_of_a_student_follows_its_schedule_and_begins_anew_with_each(
    views: tuple[View, View],
) -> None:
    """AdamW's first step is the rate itself, in every parameter that has a gradient."""
    study = replace_saliency(views[0])
    numbers: list[int] = []

    def fresh(number: int) -> tuple[Backbone, InterpretableAttention]:
        backbone = load_backbone("tiny-electra", ("no", "yes"), seed=number).double()
        return backbone, InterpretableAttention(backbone.sizes, ("head", "layer")).double()

    def rows(number: int) -> Endless[Batch]:
        numbers.append(number)
        return endless(lambda _: iter([study.batch]))

    student = ScaffoldedStudent(
        fresh, rows, RATE, BETA, life=3, schedule=lambda step: [0.5, 1.0, 0.25][step]
    )
    rates, moves = [], []
    for _ in range(4):
        rates.append(student.rate)
        before = parameters_of(student)[0].clone()
        student.practise(study)
        moves.append((parameters_of(student)[0] - before).abs().max().item())
    assert rates == [0.5 * RATE, RATE, 0.25 * RATE, 0.25 * RATE], "the last stands till the next"
    assert moves[0] == pytest.approx(0.5 * RATE, rel=1e-3)
    assert numbers == [0, 1], "each student asks for its own rows"


def test_students_take_turns_and_the_metric_is_the_share_that_agrees(
    views: tuple[View, View],
) -> None:
    study, heldout = views
    members = [copy.deepcopy(_student()) for _ in range(3)]
    together = StudentsInTurn(members)
    before = [parameters_of(student) for student in members]
    moved = []
    for _ in range(4):
        together.practise(replace_saliency(study))
        together.look_ahead(study, heldout, Plan())
        now = [parameters_of(student) for student in members]
        pairs = zip(before, now, strict=True)
        moved.append([any((a != b).any() for a, b in zip(*pair, strict=True)) for pair in pairs])
        before = now
    assert [row.index(True) for row in moved] == [0, 1, 2, 0]
    assert all(sum(row) == 1 for row in moved)
    votes = torch.stack([student.agrees(heldout) for student in members])
    torch.testing.assert_close(together.agrees(heldout), votes.mean(0))


def test_the_held_out_loss_is_judged_whatever_the_size_of_the_logits(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    """A head that speaks ten times as loud gets the same direction, up to its own length."""
    study, heldout = views
    plan = Plan(pilot=False, fixed_length=False)
    loud = copy.deepcopy(student)
    with torch.no_grad():
        for parameter in loud.backbone.model.classifier.out_proj.parameters():
            parameter.mul_(10)
    found, scaled = (s.look_ahead(study, heldout, plan) for s in (student, loud))
    torch.testing.assert_close(scaled.slope, found.slope, rtol=1e-2, atol=1e-5)
    free = plan._replace(scale_free=False)
    found, scaled = (s.look_ahead(study, heldout, free) for s in (student, loud))
    assert (scaled.slope - found.slope).norm() > 0.5 * found.slope.norm()


def test_practice_gives_no_gradient_to_the_teacher(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    student.practise(study)
    student.look_ahead(study, heldout, Plan())
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

    setup = Setup(0, (1.0,), "straight-through", lambda: student, options={"practice": 2})
    criterion = Simulatability.build(setup)
    view = replace(heldout, on=on)
    criterion.inner_step(view)
    terms = criterion(view)
    assert list(terms) == ["sim"]
    assert asked == 2 * [study.batch], "the pilot step is on the rows that were just practised"

    twin.practise(study)
    twin.practise(study)
    ahead = twin.look_ahead(study, heldout, Plan())
    torch.testing.assert_close(terms["sim"].detach(), ahead.loss)
    terms.total().mean().backward()
    assert study.saliency.grad is not None
    held = fixed_sharpness(study.saliency, study.explainable)
    loss = hypergradient_surrogate(held, study.explainable, ahead).mean()
    (expected,) = torch.autograd.grad(loss, study.saliency)
    torch.testing.assert_close(study.saliency.grad, expected)
    assert heldout.saliency.grad is None, "a student is not shown the held-out explanation"
    np.testing.assert_array_equal(criterion.metric(view), student.agrees(view))
    assert Simulatability.better == "higher"


def test_without_an_inner_step_the_criterion_takes_study_rows_itself(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    found = Simulatability(student)(replace(heldout, on=lambda batch: study))
    expected = student.look_ahead(study, heldout, Plan()).loss
    torch.testing.assert_close(found["sim"].detach(), expected)


def drawn_saliency(seed: int, zeros: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    explainable = torch.rand(5, 9, generator=generator) < 0.7
    explainable[0] = torch.arange(9) == 3
    explainable[1:, 0] = True
    scores = 3 * torch.randn(5, 9, generator=generator).double()
    if zeros:
        scores[:, 1::3] = -torch.inf
    return masked_softmax(scores, explainable), explainable


@pytest.mark.parametrize("zeros", [False, True])
def test_fixed_sharpness_is_the_saliency_itself(zeros: bool) -> None:
    saliency, explainable = drawn_saliency(0, zeros)
    torch.testing.assert_close(fixed_sharpness(saliency, explainable), saliency)


def test_fixed_sharpness_has_no_gradient_along_the_temperature() -> None:
    saliency, explainable = drawn_saliency(1, zeros=False)
    scores = torch.where(explainable, saliency, 1.0).log()
    weights = torch.randn(5, 9, generator=torch.Generator().manual_seed(2)).double()

    def along_temperature(hold: bool) -> float:
        temperature = torch.ones((), dtype=torch.double, requires_grad=True)
        r = masked_softmax(scores * temperature, explainable)
        r = fixed_sharpness(r, explainable) if hold else r
        return float(torch.autograd.grad((weights * r).sum(), temperature)[0])

    assert abs(along_temperature(hold=False)) > 1e-2
    assert abs(along_temperature(hold=True)) < 1e-9


def test_the_gradient_of_fixed_sharpness_is_that_of_the_scores_at_one_spread() -> None:
    """Against ``softmax(c s / std(s))``, differentiated by finite differences, ``c`` a number."""
    saliency, explainable = drawn_saliency(3, zeros=False)
    saliency, explainable = saliency[1:], explainable[1:]
    rows = [row[mask].numpy() for row, mask in zip(saliency, explainable, strict=True)]
    for row, r in enumerate(rows):
        spread = np.log(r).std()

        def value(s: np.ndarray, spread: float = spread) -> float:
            e = np.exp(spread * (s - s.mean()) / s.std())
            return float((np.arange(len(s)) ** 2 * e / e.sum()).sum())

        expected = [
            (value(np.log(r) + h) - value(np.log(r) - h)) / 2e-5 for h in 1e-5 * np.eye(len(r))
        ]
        s = torch.tensor(np.log(r), requires_grad=True)
        mask = torch.ones(1, len(r), dtype=torch.bool)
        found = fixed_sharpness(s.softmax(-1)[None], mask)[0]
        (found * torch.arange(len(r)) ** 2).sum().backward()
        assert s.grad is not None
        np.testing.assert_allclose(s.grad.numpy(), expected, atol=1e-6, err_msg=str(row))


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_a_saliency_is_pulled_to_the_sharpness_it_is_held_at(
    student: ScaffoldedStudent, views: tuple[View, View], sharpness: float
) -> None:
    """The gradient of the term, along the temperature of the saliency it is shown."""
    study, heldout = views
    scores = torch.where(study.explainable, study.saliency.detach(), 1.0).log()
    criterion = Simulatability(student, sharpness=sharpness)

    def pull(temperature: float) -> float:
        t = torch.tensor(temperature, dtype=torch.double, requires_grad=True)
        shown = replace(study, saliency=masked_softmax(scores * t, study.explainable))
        view = replace(heldout, on=lambda batch: shown)
        return float(torch.autograd.grad(criterion(view).total().mean(), t)[0])

    first = pull(1.0)
    assert (abs(first) < 1e-9) == (sharpness == 1.0), "as sharp as it is held: no pull"
    assert abs(pull(sharpness)) < 1e-9
    assert pull(1.3 * sharpness) > 1e-6, "sharper: the loss falls as the temperature does"
    assert pull(0.8 * sharpness) < -1e-6, "softer: it falls as the temperature rises"


def test_a_saliency_without_a_gradient_has_a_value_all_the_same(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    shown = replace_saliency(study)
    criterion = Simulatability(student, sharpness=2.0)
    found = criterion(replace(heldout, on=lambda batch: shown))["sim"]
    torch.testing.assert_close(found, student.look_ahead(shown, heldout, Plan()).loss)


def own_saliency(student: ScaffoldedStudent, view: View) -> Tensor:
    with torch.no_grad():
        return Reader(student)(view.batch)[1]


def test_a_student_that_is_guided_by_its_own_saliency_reads_as_ever(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    _, heldout = views
    guided = student.guided(replace(heldout, saliency=own_saliency(student, heldout)))
    logits = student.backbone.encode(heldout.batch).logits
    expected = functional.cross_entropy(logits, heldout.predictions, reduction="none")
    torch.testing.assert_close(guided.loss, expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(guided.divergence, torch.zeros_like(expected), rtol=0, atol=1e-9)


def test_a_guided_student_is_the_model_with_its_attention_multiplied(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    """By Hugging Face's own eager attention, whose mask is added before the softmax."""
    _, heldout = views
    batch, own = heldout.batch, own_saliency(student, heldout)
    ratio = (heldout.saliency.detach() + 1e-4) / (own + 1e-4)
    ratio = torch.where(batch.explainable, ratio, batch.attention_mask.double())
    assert ratio.max() > 2
    model = copy.deepcopy(student.backbone.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        logits = model(
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=ratio.log()[:, None, None].expand(-1, 1, ratio.shape[1], -1),
        ).logits
    expected = functional.cross_entropy(logits, heldout.predictions, reduction="none")
    torch.testing.assert_close(
        student.guided(heldout).loss.detach(), expected, rtol=1e-5, atol=1e-6
    )


def test_what_the_guided_student_loses_is_differentiated_in_the_saliency_alone(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    _, heldout = views
    guided = student.guided(heldout)
    (guided.loss + guided.divergence).sum().backward()
    found = heldout.saliency.grad
    assert found is not None
    parameters = [*student.backbone.learnable, *student.module.parameters()]
    assert all(p.grad is None and p.requires_grad for p in parameters)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        way = torch.randn(found.shape, generator=generator).double() * heldout.explainable
        way = way * heldout.saliency.detach()  # stay positive
        ends = []
        for sign in (1, -1):
            moved = replace(heldout, saliency=heldout.saliency.detach() + sign * 1e-5 * way)
            ends.append(sum(part.sum().item() for part in student.guided(moved)))
        assert (found * way).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_the_guided_form_is_the_students_loss_of_held_out_rows(
    student: ScaffoldedStudent, views: tuple[View, View]
) -> None:
    study, heldout = views
    options = {"form": "guided", "practice": 1, "head_start": 0.0, "imitation": 0.5, "entropy": 0.7}
    setup = Setup(0, (1.0,), "straight-through", lambda: student, options=options)
    criterion = Simulatability.build(setup)
    before = parameters_of(student)
    criterion.inner_step(replace(heldout, on=lambda batch: study))
    assert any((a != b).any() for a, b in zip(before, parameters_of(student), strict=True))
    terms = criterion(heldout)
    guided = student.guided(heldout)
    torch.testing.assert_close(terms["sim"], guided.loss)
    torch.testing.assert_close(terms["imitation"], 0.5 * guided.divergence)
    for row, mask, value in zip(
        heldout.saliency.detach().numpy(),
        heldout.explainable.numpy(),
        terms["entropy"].tolist(),
        strict=True,
    ):
        share = entropy(row[mask]) / np.log(mask.sum())
        assert value == pytest.approx(10 * (share - 0.7) ** 2)
    terms.total().mean().backward()
    assert study.saliency.grad is None
    assert heldout.saliency.grad is not None


def test_a_student_practises_alone_for_the_first_part_of_its_life(
    views: tuple[View, View],
) -> None:
    study, heldout = views
    made: list[int] = []

    def fresh(number: int) -> tuple[Backbone, InterpretableAttention]:
        made.append(number)
        backbone = load_backbone("tiny-electra", ("no", "yes"), seed=number).double()
        return backbone, InterpretableAttention(backbone.sizes, ("head", "layer")).double()

    student = ScaffoldedStudent(
        fresh, lambda _: endless(lambda _: iter([study.batch])), RATE, BETA, life=10, age=4
    )
    options = {"form": "guided", "practice": 1, "head_start": 0.3}
    setup = Setup(0, (1.0,), "straight-through", lambda: student, options=options)
    criterion, view = Simulatability.build(setup), replace(heldout, on=lambda batch: study)
    seen = []
    for _ in range(6):
        criterion.inner_step(view)
        seen.append((len(made), student.practised))
    assert seen == [(1, 0.3), (1, 0.4), (1, 0.5), (1, 0.6), (2, 0.3), (2, 0.4)]


def test_the_share_of_entropy_goes_from_a_single_token_to_all_alike() -> None:
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [1.0, 0, 0, 0]])
    assert entropy_share(rows, mask).tolist() == [0, 1, 0]
    half = torch.tensor([[0.5, 0.5, 0, 0]])
    assert entropy_share(half, mask[:1]).item() == pytest.approx(0.5)
