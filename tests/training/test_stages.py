"""What stage 1 shows a model, and which rows share a step of stage 2."""

import itertools
from collections.abc import Callable

import pytest
import torch

from ivra.losses import Simulatability, entropy_share
from ivra.training import Hooks, StudentsInTurn, TrainConfig
from ivra.training.lesson import read_lesson
from ivra.training.stages import CriteriaStage, thinned


def test_nothing_is_removed_from_a_share_of_no_rows() -> None:
    explainable = torch.rand(50, 20) < 0.8
    assert torch.equal(thinned(explainable, 0.0), torch.ones(50, 20))


def test_only_explainable_tokens_go_in_about_the_share_of_the_rows() -> None:
    torch.manual_seed(0)
    explainable = torch.rand(4000, 30) < 0.8
    keep = thinned(explainable, 0.25)
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    assert (keep[~explainable] == 1).all()
    touched = (keep == 0).any(-1)
    assert 0.2 < touched.float().mean() < 0.25, "a row may be drawn and lose nothing"


def test_how_much_of_a_row_goes_is_drawn_evenly() -> None:
    torch.manual_seed(1)
    gone = (thinned(torch.ones(4000, 200, dtype=torch.bool), 1.0) == 0).float().mean(-1)
    quartiles = gone.quantile(torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([0.25, 0.5, 0.75]), atol=0.03, rtol=0)


@pytest.mark.parametrize(("criteria", "alike"), [("suff", True), ("cons", False)])
def test_batches_of_like_length_are_not_for_criteria_that_compare_rows(
    config: Callable[..., TrainConfig], criteria: str, alike: bool
) -> None:
    chosen = config(criteria=criteria, batching="by-length")
    lesson = read_lesson(chosen, "cpu")
    stage = CriteriaStage(chosen, lesson.encoder, lesson.module, lesson.train, lesson.valid)
    batches = list(stage.shared.batches(stage.train, 0))
    lengths = [batch.attention_mask.sum(-1).tolist() for batch in batches]
    spans = sorted((min(each), max(each)) for each in lengths)
    apart = all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert len(batches) == 4
    assert apart is alike
    assert stage.encoder.by_length is alike


def stage_of(chosen: TrainConfig, hooks: tuple[Hooks, ...] = ()) -> CriteriaStage:
    lesson = read_lesson(chosen, "cpu")
    return CriteriaStage(chosen, lesson.encoder, lesson.module, lesson.train, lesson.valid, hooks)


@pytest.mark.parametrize(("form", "begins"), [("guided", True), ("hypergradient", False)])
def test_training_begins_at_the_entropy_that_a_criterion_asks_for(
    config: Callable[..., TrainConfig], form: str, begins: bool
) -> None:
    options = {"sim": {"form": form, "entropy": 0.25, "head_start": 0.0}}
    found: list[float] = []

    class Peek(Hooks):
        def on_begin(self, name: str, steps: int) -> None:
            views = [stage.view(batch) for batch in stage.encoder.batches(stage.train)]
            shares = [entropy_share(view.saliency, view.explainable) for view in views]
            found.append(torch.cat(shares).mean().item())

    stage = stage_of(config(criteria="sim", options=options, whiten=True), (Peek(),))
    stage.run()
    assert (found == [pytest.approx(0.25, abs=1e-3)]) is begins


@pytest.mark.parametrize("pool", [None, 16])
def test_students_learn_from_the_same_rows_or_each_from_its_own_of_a_pool(
    config: Callable[..., TrainConfig], pool: int | None
) -> None:
    stage = stage_of(config(criteria="sim", student_pool=pool, student_count=3))
    (criterion,) = stage.criteria
    assert isinstance(criterion, Simulatability)
    assert isinstance(criterion.student, StudentsInTurn)
    kept = {item.row.id for item in stage.train}
    seen = []
    for student in criterion.student.students:
        batches = [student.study_rows() for _ in range(3)]  # epochs of one batch of 8
        ids = [frozenset(item.row.id for item in batch.items) for batch in batches]
        assert len(ids[0]) == 8
        assert len(set(ids)) == 1
        assert kept.isdisjoint(ids[0])
        seen.append(ids[0])
    assert len(kept) == 32 - (pool or 8)
    assert len(set(seen)) == (1 if pool is None else 3)
