"""The loop on a loss whose gradient is constant, so that AdamW moves by the learning rate."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import nn

from ivra.data import Batch, Item, Row, collate
from ivra.errors import IvraError
from ivra.training import (
    Hooks,
    Loop,
    Objective,
    Outcome,
    Validation,
    Whitened,
    WhitenedAdamW,
    endless,
    linear_schedule,
)
from ivra.training.loop import step_schedule, trainable

ITEM = Item([1], [0], [True], [0], [0], [(0, 1)], 0, None, Row("a", ("a",)))
BATCH = collate([ITEM], 0)


class Recorder(Hooks):
    """Every call in order."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_begin(self, stage: str, steps: int) -> None:
        self.calls.append(("begin", stage, steps))

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        self.calls.append(("step", stage, step, terms))

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        self.calls.append(("validation", stage, step, validation.score, best))

    def on_end(self, stage: str, interrupted: bool) -> None:
        self.calls.append(("end", stage, interrupted))


class Slide:
    """A parameter that slides down at the learning rate: its loss is its value."""

    def __init__(self, rate: float = 1.0) -> None:
        self.parameter = nn.Parameter(torch.zeros(()))
        self.path: list[float] = []
        self.groups = [([self.parameter], rate)]

    def __call__(self, batch: Batch) -> Objective:
        self.path.append(self.parameter.item())
        return Objective(self.parameter.sum(), {"value": self.parameter.item()})


def run(slide: Slide, steps: int, objective: Callable | None = None, **options: object) -> Outcome:
    loop = Loop("stage", slide.groups, objective or slide, steps, **options)
    return loop.run(endless(lambda _: iter([BATCH])))


def scores(*values: float) -> Callable[[], Validation]:
    stream: Iterator[float] = iter(values)
    return lambda: Validation(next(stream), {})


def test_every_step_moves_by_the_scheduled_learning_rate() -> None:
    slide = Slide(rate=0.5)
    outcome = run(slide, 4, schedule=lambda step: [1.0, 0.5, 0.25, 2.0, 9.0][step])
    steps = [b - a for a, b in itertools.pairwise([*slide.path, slide.parameter.item()])]
    assert steps == pytest.approx([-0.5, -0.25, -0.125, -1.0], rel=1e-5)
    assert outcome == Outcome(4, 4, None, False)


def test_each_group_has_its_own_learning_rate() -> None:
    slide = Slide(rate=0.1)
    other = nn.Parameter(torch.zeros(()))
    slide.groups.append(([other], 0.03))
    slide.groups.append(([], 1.0))
    run(slide, 2, objective=lambda batch: Objective(slide.parameter + other, {}))
    assert slide.parameter.item() == pytest.approx(-0.2, rel=1e-5)
    assert other.item() == pytest.approx(-0.06, rel=1e-5)


@pytest.mark.parametrize(("average", "expected"), [(0.0, -4.0), (0.5, -3.5), (1.0, -2.5)])
def test_the_mean_of_the_last_weights_takes_their_place(average: float, expected: float) -> None:
    slide, seen = Slide(rate=1.0), []

    def validate() -> Validation:
        seen.append(slide.parameter.item())
        return Validation(None, {})

    run(slide, 4, average=average, validate=validate, validations=2)
    assert slide.parameter.item() == pytest.approx(expected, rel=1e-5), "after -1, -2, -3, -4"
    assert seen == pytest.approx([0, -2, expected], rel=1e-5), "and is what is validated"


def test_an_interrupted_stage_keeps_its_last_weights_not_a_mean() -> None:
    slide = Slide(rate=1.0)

    def cut_off(batch: Batch) -> Objective:
        if len(slide.path) == 3:
            raise KeyboardInterrupt
        return slide(batch)

    assert run(slide, 4, objective=cut_off, average=1.0).interrupted
    assert slide.parameter.item() == pytest.approx(-3.0, rel=1e-5)


def test_weight_decay_is_decoupled_from_the_gradient() -> None:
    slide = Slide(rate=0.1)
    with torch.no_grad():
        slide.parameter.fill_(2.0)
    run(slide, 1, weight_decay=0.5)
    assert slide.parameter.item() == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1, rel=1e-6)


def test_gradients_are_clipped_to_the_norm_over_all_groups() -> None:
    slide = Slide()
    other = nn.Parameter(torch.zeros(()))
    slide.groups.append(([other], 1.0))
    run(slide, 1, objective=lambda batch: Objective(3 * slide.parameter + 4 * other, {}), clip=0.5)
    assert slide.parameter.grad is not None
    assert other.grad is not None
    assert slide.parameter.grad.item() == pytest.approx(0.3, rel=1e-4)
    assert other.grad.item() == pytest.approx(0.4, rel=1e-4)


def test_gradients_are_clipped_in_the_whitened_coordinates() -> None:
    slide, scales = Slide(), torch.tensor([1000.0, 1.0])
    slide.parameter = nn.Parameter(torch.zeros(2))
    slide.groups = [([slide.parameter], 1.0)]
    whitened = [Whitened([slide.parameter], (1 / scales).diag())]
    optimizer = partial(WhitenedAdamW, whitened=whitened)
    slopes = scales * torch.tensor([3.0, 4.0])
    run(slide, 1, lambda _: Objective(slopes @ slide.parameter, {}), clip=0.5, optimizer=optimizer)
    assert slide.parameter.grad is not None
    assert slide.parameter.grad.tolist() == pytest.approx([0.3, 0.4], rel=1e-4)
    assert slide.parameter.tolist() == pytest.approx([-1 / 1000, -1], rel=1e-4)


def test_gradients_do_not_add_up_over_steps() -> None:
    slide = Slide()
    run(slide, 3, clip=100.0)
    assert slide.parameter.grad is not None
    assert slide.parameter.grad.item() == pytest.approx(1)


def test_the_best_iteration_is_restored() -> None:
    slide = Slide()
    outcome = run(slide, 4, validate=scores(0.0, 1.0, 3.0, 2.0, 2.5), validations=4)
    assert slide.path == pytest.approx([0, -1, -2, -3], rel=1e-4)
    assert slide.parameter.item() == pytest.approx(-2, rel=1e-4)
    assert outcome == Outcome(4, 2, Validation(3.0, {}), False)


def test_the_start_is_kept_where_nothing_is_better_and_of_equals_the_first() -> None:
    slide = Slide()
    outcome = run(slide, 2, validate=scores(1.0, 1.0, 0.5), validations=2)
    assert outcome.best_step == 0
    assert slide.parameter.item() == 0


def test_an_undefined_score_is_never_the_best() -> None:
    slide = Slide()
    outcome = run(slide, 2, validate=scores(float("nan"), 1.0, float("nan")), validations=2)
    assert outcome.best_step == 1
    assert outcome.best == Validation(1.0, {})


def test_hooks_are_told_everything_in_order() -> None:
    recorder, slide = Recorder(), Slide()
    run(slide, 2, validate=scores(0.0, -1.0, 2.0), validations=5, hooks=(recorder,))
    step = [call for call in recorder.calls if call[0] == "step"]
    assert [call[3]["value"] for call in step] == pytest.approx([0.0, -1.0], rel=1e-4)
    assert [call[:3] + call[3:] * (call[0] != "step") for call in recorder.calls] == [
        ("begin", "stage", 2),
        ("validation", "stage", 0, 0.0, True),
        ("step", "stage", 1),
        ("validation", "stage", 1, -1.0, False),
        ("step", "stage", 2),
        ("validation", "stage", 2, 2.0, True),
        ("end", "stage", False),
    ]


@pytest.mark.parametrize(
    ("steps", "validations", "expected"),
    [(10, 2, [0, 5, 10]), (10, 3, [0, 3, 7, 10]), (3, 10, [0, 1, 2, 3]), (7, 1, [0, 7])],
)
def test_validations_are_spread_evenly_and_the_last_step_is_one(
    steps: int, validations: int, expected: list[int]
) -> None:
    recorder = Recorder()
    run(
        Slide(),
        steps,
        validate=lambda: Validation(0.0, {}),
        validations=validations,
        hooks=(recorder,),
    )
    assert [call[2] for call in recorder.calls if call[0] == "validation"] == expected


def interrupted_at(slide: Slide, step: int) -> Callable[[Batch], Objective]:
    def objective(batch: Batch) -> Objective:
        if len(slide.path) == step - 1:
            raise KeyboardInterrupt
        return slide(batch)

    return objective


def test_an_interrupt_ends_the_loop_and_restores_the_best() -> None:
    slide, recorder = Slide(), Recorder()
    outcome = run(
        slide,
        10,
        objective=interrupted_at(slide, 3),
        validate=scores(0.0, 5.0, 1.0),
        validations=10,
        hooks=(recorder,),
    )
    assert outcome.interrupted
    assert outcome.best_step == 1
    assert slide.parameter.item() == pytest.approx(-1, rel=1e-4)
    assert recorder.calls[-1] == ("end", "stage", True)


def test_an_interrupted_loop_counts_the_steps_that_were_done() -> None:
    slide = Slide()
    outcome = run(slide, 10, objective=interrupted_at(slide, 3))
    assert slide.parameter.item() == pytest.approx(-2, rel=1e-4)
    assert outcome == Outcome(2, 2, None, True)


def test_an_interrupt_in_the_first_validation_leaves_the_start() -> None:
    def validate() -> Validation:
        raise KeyboardInterrupt

    slide = Slide()
    assert run(slide, 5, validate=validate) == Outcome(0, 0, None, True)
    assert slide.path == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_step(value: float) -> None:
    slide = Slide()

    def objective(batch: Batch) -> Objective:
        loss = slide(batch).loss
        return Objective(loss * value if len(slide.path) == 3 else loss, {})

    with pytest.raises(IvraError) as caught:
        run(slide, 5, objective=objective)
    assert str(caught.value) == (
        f"stage step 3, batch of rows a: the loss is {-2 * value}; lower the learning rate, or "
        "leave such steps out with skip_nonfinite: what was saved before is kept"
    )
    assert slide.parameter.item() == pytest.approx(-2, rel=1e-4), "no step was taken with it"


def test_a_loss_that_is_not_finite_keeps_the_best_weights_as_it_says() -> None:
    slide = Slide()

    def objective(batch: Batch) -> Objective:
        loss = slide(batch).loss
        return Objective(loss * float("nan") if len(slide.path) == 4 else loss, {})

    with pytest.raises(IvraError, match=r"what was saved before is kept$"):
        run(slide, 5, objective=objective, validate=scores(0.0, 2.0, 1.0, 1.0), validations=5)
    assert slide.parameter.item() == pytest.approx(-1, rel=1e-4)


def test_gradients_that_are_not_finite_do_not_reach_the_weights() -> None:
    """A finite loss can have such a gradient: sqrt at 0."""
    slide = Slide()

    def objective(batch: Batch) -> Objective:
        loss = slide(batch).loss
        return Objective(loss + (0 * loss).abs().sqrt() if len(slide.path) == 2 else loss, {})

    with pytest.raises(IvraError):
        run(slide, 4, objective=objective)
    assert math.isfinite(slide.parameter.item())


@pytest.mark.parametrize(
    ("steps", "warmup"), [(10, 0.1), (200, 0.1), (50, 0.02), (1, 0.1), (7, 0.5)]
)
def test_the_linear_schedule_rises_to_one_and_falls_to_zero(steps: int, warmup: float) -> None:
    schedule = linear_schedule(steps, warmup)
    rise = max(1, round(steps * warmup))
    for step in range(steps + 1):
        up, down = (step + 1) / rise, (steps - step) / max(1, steps - rise)
        expected = up if step < rise else down
        assert schedule(step) == pytest.approx(min(1, expected)), step
    assert schedule(steps) == 0
    assert schedule(steps + 5) == 0


def test_linear_schedule_by_hand() -> None:
    found = [linear_schedule(10, 0.2)(step) for step in range(11)]
    expected = [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0]
    assert found == pytest.approx(expected)


def test_step_schedule_by_hand() -> None:
    found = [step_schedule(0.5, 3)(step) for step in range(8)]
    assert found == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_endless_goes_through_epoch_after_epoch() -> None:
    stream = endless(lambda n: iter([f"{n}a", f"{n}b"]))  # type: ignore[arg-type]
    assert list(itertools.islice(stream, 5)) == ["0a", "0b", "1a", "1b", "2a"]


def test_trainable_switches_gradients_and_lists_what_has_one() -> None:
    layer = nn.Linear(2, 2)
    assert trainable(layer.parameters(), False) == []
    assert not layer.weight.requires_grad
    assert [id(p) for p in trainable(layer.parameters(), True)] == [
        id(layer.weight),
        id(layer.bias),
    ]
    assert layer.bias.requires_grad
