"""What stage 1 shows a model, and which rows share a step of stage 2."""

import itertools
from collections.abc import Callable

import pytest
import torch

from ivra.training import TrainConfig
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
