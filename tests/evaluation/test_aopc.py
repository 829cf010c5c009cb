"""AOPC against a loop that deletes tokens by hand and asks transformers itself, in float64."""

import copy
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

import ivra.evaluation.reduced as reduced_module
from ivra.backbones import Backbone
from ivra.data import Item, Row
from ivra.evaluation import AopcSettings, aopc, cuts, delete, predict
from ivra.evaluation.prediction import TokenRows, predict_rows

BINS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SETTINGS = AopcSettings(bins=BINS)
LONE = Item([9], [0], [True], [0], [0], [(0, 4)], 0, None, Row("lone", ("good",)))


def probabilities(backbone: Backbone, ids: Sequence[list[int]]) -> Tensor:
    """Of each row alone and unpadded, by transformers' own attention."""
    model = copy.deepcopy(backbone.model).double().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row])).logits for row in ids]).softmax(-1)


def by_hand(item: Item, scores: Tensor, percent: float) -> tuple[list[int], list[int]]:
    """Token ids without the top, and with the top alone beside the special tokens."""
    places = [place for place, yes in enumerate(item.explainable) if yes]
    places.sort(key=lambda place: (-float(scores[place]), place))
    top = places[: max(1, math.ceil(Fraction(percent) * len(places) / 100))]
    without = [token for place, token in enumerate(item.input_ids) if place not in top]
    only = [
        token
        for place, token in enumerate(item.input_ids)
        if place in top or not item.explainable[place]
    ]
    return without or item.input_ids[:1], only


def naive(backbone: Backbone, item: Item, scores: Tensor, percent: float) -> tuple[float, float]:
    without, only = by_hand(item, scores, percent)
    whole, less, alone = probabilities(backbone, [item.input_ids, without, only])
    prediction = int(whole.argmax())
    return (
        float(whole[prediction] - less[prediction]),
        float(whole[prediction] - alone[prediction]),
    )


def rankings(items: Sequence[Item], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(len(item.input_ids), generator=generator) for item in items]


def tied(items: Sequence[Item]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 3, (len(i.input_ids),), generator=generator).float() for i in items]


def test_aopc_is_what_deleting_tokens_by_hand_gives(backbone: Backbone, items: list[Item]) -> None:
    given = {"first": rankings(items, 1), "second": rankings(items, 2), "tied": tied(items)}
    found = aopc(backbone, items, given, SETTINGS)
    assert list(found) == list(given)
    for name, scores in given.items():
        expected = torch.tensor(
            [
                [naive(backbone, item, row, percent) for percent in BINS]
                for item, row in zip(items, scores, strict=True)
            ]
        )
        figures = found[name]
        for place, (rows, by_bin) in enumerate(
            [(figures.comp, figures.comp_by_bin), (figures.suff, figures.suff_by_bin)]
        ):
            assert rows.tolist() == pytest.approx(expected[..., place].mean(1).tolist(), abs=1e-5)
            assert by_bin == pytest.approx(expected[..., place].mean(0).tolist(), abs=1e-5)
        assert expected.abs().max() > 0.01  # the model cares about what is deleted


def test_the_whole_budget_in_one_batch_or_a_row_at_a_time_is_the_same(
    backbone: Backbone, items: list[Item]
) -> None:
    given = {"random": rankings(items, 3)}
    one, many = (aopc(backbone, items, given, SETTINGS, budget=b)["random"] for b in (1, 4096))
    torch.testing.assert_close(one.comp, many.comp, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.suff, many.suff, atol=1e-5, rtol=0)


def test_logits_that_are_given_are_used(electra: Backbone, items: list[Item]) -> None:
    given = {"random": rankings(items, 3)}
    own = aopc(electra, items, given, SETTINGS)["random"]
    passed = aopc(electra, items, given, SETTINGS, predict(electra, items))["random"]
    assert torch.equal(own.comp, passed.comp)
    swapped = aopc(electra, items, given, SETTINGS, predict(electra, items).flip(1))["random"]
    assert not torch.allclose(own.comp, swapped.comp, atol=1e-3)


def test_equal_reduced_inputs_are_run_once(
    electra: Backbone, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across bins, explainers and rows; what equals a whole row is not run at all."""
    seen: list[tuple[int, ...]] = []

    def counting(backbone: Backbone, rows: TokenRows, budget: int, *, no_words: bool) -> Tensor:
        seen.extend(tuple(row) for row in split(rows))
        return predict_rows(backbone, rows, budget, no_words=no_words)

    monkeypatch.setattr(reduced_module, "predict_rows", counting)
    scores = rankings(items, 4)
    twice = {"one": scores, "same": [2 * row + 1 for row in scores], "tied": tied(items)}
    found = aopc(electra, items, twice, SETTINGS, predict(electra, items))
    wanted = {
        tuple(delete(item, reduced).input_ids)
        for ranking in twice.values()
        for item, row in zip(items, ranking, strict=True)
        for percent in BINS
        for reduced in cuts(item, row, percent)
    }
    wanted |= {tuple(delete(i, tuple(not e for e in i.explainable)).input_ids) for i in items}
    assert len(seen) == len(set(seen))
    assert set(seen) == wanted - {tuple(item.input_ids) for item in items}
    assert len(wanted) < 2 * len(BINS) * len(twice) * len(items)
    assert torch.equal(found["one"].comp, found["same"].comp)
    assert found["one"].suff_by_bin == found["same"].suff_by_bin


def split(rows: TokenRows) -> list[list[int]]:
    return [
        part.tolist() for part in np.split(rows.codes, np.cumsum(rows.lengths)[:-1]) if len(part)
    ]


def test_special_tokens_stay_however_high_their_score(items: list[Item]) -> None:
    for item in items:
        scores = torch.tensor([0.0 if yes else 9.0 for yes in item.explainable])
        assert not all(item.explainable)
        for percent in BINS:
            for keep in cuts(item, scores, percent):
                kept = delete(item, keep)
                special = [
                    i for i, yes in zip(item.input_ids, item.explainable, strict=True) if not yes
                ]
                left = [
                    i for i, yes in zip(kept.input_ids, kept.explainable, strict=True) if not yes
                ]
                assert left == special


def test_ties_go_to_the_earlier_token(items: list[Item]) -> None:
    item = max(items, key=lambda item: len(item.input_ids))
    without, only = cuts(item, torch.zeros(len(item.input_ids)), 20.0)
    places = [place for place, yes in enumerate(item.explainable) if yes]
    top = places[: math.ceil(len(places) / 5)]
    assert [place for place, kept in enumerate(without) if not kept] == top
    assert [place for place in places if only[place]] == top


def test_a_row_of_one_token_keeps_its_token(backbone: Backbone) -> None:
    assert delete(LONE, (False,)) == LONE
    found = aopc(backbone, [LONE], {"any": [torch.zeros(1)]}, AopcSettings(bins=(10.0, 50.0)))[
        "any"
    ]
    assert found.comp.tolist() == pytest.approx([0.0], abs=1e-6)
    assert found.suff.tolist() == pytest.approx([0.0], abs=1e-6)


def test_everything_that_runs_along_the_tokens_is_deleted_with_them(items: list[Item]) -> None:
    marks = [True] * len(items[0].input_ids)
    item = items[0]._replace(rationale=marks)
    keep = tuple(place != 1 for place in range(len(marks)))
    kept = delete(item, keep)
    for name in ("input_ids", "token_type_ids", "explainable", "segment", "word", "offsets"):
        values = getattr(item, name)
        assert getattr(kept, name) == values[:1] + values[2:]
    assert kept.rationale == marks[1:]
    assert kept.row == item.row
    assert len(item.input_ids) == len(marks)
