"""Controls of simulation: a leak by position, the marks themselves, and seeded noise."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivra.backbones import load_backbone
from ivra.data import Item, Row, collate
from ivra.errors import IvraError
from ivra.explainers import (
    CONTROLS,
    MarkedTokens,
    RandomScores,
    TrivialScores,
    control,
    trivial_saliency,
)


def item(explainable: list[bool], rationale: list[bool] | None = None) -> Item:
    zeros = [0] * len(explainable)
    spans = [(0, 1)] * len(explainable)
    return Item(zeros, zeros, explainable, zeros, zeros, spans, 0, rationale, Row("x", ("x",)))


@given(
    rows=st.lists(
        st.tuples(st.lists(st.booleans(), min_size=1, max_size=40).filter(any), st.integers(0, 3)),
        min_size=1,
        max_size=4,
    ),
    side=st.sampled_from(["left", "right"]),
)
@settings(deadline=None)
def test_the_trivial_control_marks_the_tenth_of_the_predicted_class(
    rows: list[tuple[list[bool], int]], side: str
) -> None:
    batch = collate([item(explainable) for explainable, _ in rows], 0, side)
    found = trivial_saliency(batch.explainable, torch.tensor([label for _, label in rows]))
    for row, (explainable, prediction) in enumerate(rows):
        own = found[row, batch.attention_mask[row]].tolist()
        places = [place for place, yes in enumerate(explainable) if yes]
        count = math.ceil(len(places) / 10)
        expected = [0.0] * len(explainable)
        for step in range(count):
            expected[places[(prediction * count + step) % len(places)]] = 1 / count
        assert own == pytest.approx(expected)
        assert sum(own) == pytest.approx(1.0)


def test_the_trivial_control_tells_the_models_own_prediction() -> None:
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=3).eval()
    batch = collate([item([True] * 20)], 0)
    for prediction in (0, 1):
        told = copy.deepcopy(backbone)
        with torch.no_grad():
            told.model.classifier.out_proj.bias[prediction] += 100
        saliency = TrivialScores().explain(told, batch)[0]
        places = saliency.nonzero()[:, 0].tolist()
        assert places == [2 * prediction, 2 * prediction + 1]
        assert saliency.sum() == 1


def test_true_rationales_are_uniform_over_the_marks() -> None:
    backbone = load_backbone("tiny-electra", ("no", "yes"))
    marked = item([False, True, True, True], [False, True, False, True])
    bare = item([True, True], None)
    blank = item([True, True, True], [False, False, False])
    for side in ("left", "right"):
        batch = collate([marked, bare, blank], 0, side)
        found = MarkedTokens().explain(backbone, batch)
        visible = batch.attention_mask
        assert found[0, visible[0]].tolist() == [0.0, 0.5, 0.0, 0.5]
        assert found[1:].abs().sum() == 0


def test_controls_are_found_by_name_and_random_ones_take_the_seed() -> None:
    assert list(CONTROLS) == ["random", "trivial", "true"]
    for name in CONTROLS:
        assert control(name).name == name
    noise = control("random", 7)
    assert isinstance(noise, RandomScores)
    assert noise.seed == 7
    with pytest.raises(IvraError, match=r"unknown control 'tru'. Did you mean 'true'\?"):
        control("tru")
