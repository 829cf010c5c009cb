"""ERASER's results: reduced rows deleted by hand, words counted by hand, figures worked by hand."""

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ivra.backbones import Backbone, load_backbone
from ivra.data import Item, Row, encode_rows
from ivra.evaluation import (
    AopcSettings,
    EraserScores,
    Reduced,
    aopc,
    eraser_figures,
    eraser_scores,
    rationale_share,
)
from ivra.losses import AOPC_BINS

PERCENTS = (1.0, 5.0, 10.0, 20.0, 50.0)


def rankings(items: Sequence[Item], seed: int) -> list[Tensor]:
    """As of an explainer: 0 at tokens that are not explainable."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(len(item.input_ids), generator=generator) * torch.tensor(item.explainable)
        for item in items
    ]


def probabilities(backbone: Backbone, ids: Sequence[list[int]]) -> list[list[float]]:
    """Of each row alone and unpadded, by transformers' own attention in float64."""
    model = copy.deepcopy(backbone.model).double().eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        logits = torch.cat([model(input_ids=torch.tensor([row])).logits for row in ids])
    return logits.softmax(-1).tolist()


def word_of(item: Item, place: int) -> int:
    """Which word of its one text a token begins in, by counting the words before it."""
    return len(item.row.texts[0][: item.offsets[place][0] + 1].split()) - 1


def test_the_rationale_is_deleted_word_by_word(backbone: Backbone, items: list[Item]) -> None:
    scores, share = rankings(items, 1), 0.3
    found = eraser_scores(backbone, items, scores, share)
    for item, row, given_scores in zip(items, found, scores, strict=True):
        explained = [place for place, yes in enumerate(item.explainable) if yes]
        by_word: dict[int, float] = {}
        for place in explained:
            word = word_of(item, place)
            by_word[word] = by_word.get(word, 0.0) + float(given_scores[place])
        words = item.row.texts[0].split()
        assert row.soft[0] == pytest.approx([by_word[word] for word in range(len(words))])
        ranked = sorted(by_word, key=lambda word: (-by_word[word], word))
        top = ranked[: max(1, math.ceil(share * len(words)))]
        assert [word for start, end in row.hard[0] for word in range(start, end)] == sorted(top)
        without = [
            token
            for place, token in enumerate(item.input_ids)
            if place not in explained or word_of(item, place) not in top
        ]
        only = [
            token
            for place, token in enumerate(item.input_ids)
            if place not in explained or word_of(item, place) in top
        ]
        expected = probabilities(
            backbone, [item.input_ids, without or item.input_ids[:1], only or item.input_ids[:1]]
        )
        assert row.whole == pytest.approx(expected[0], abs=1e-5)
        assert row.reduced.without == pytest.approx(expected[1], abs=1e-5)
        assert row.reduced.only == pytest.approx(expected[2], abs=1e-5)
        assert row.prediction == max(range(2), key=lambda c: expected[0][c])


def test_the_bins_are_those_of_aopc(backbone: Backbone, items: list[Item]) -> None:
    scores = rankings(items, 2)
    found = eraser_scores(backbone, items, scores, 0.2, PERCENTS)
    given = {"one": scores, "other": rankings(items, 3)}
    expected = aopc(backbone, items, given, AopcSettings(bins=PERCENTS))["one"]
    for which, rows in enumerate((expected.comp, expected.suff)):
        drops = [
            [row.whole[row.prediction] - row.by_percent[p][which][row.prediction] for p in PERCENTS]
            for row in found
        ]
        means = torch.tensor(drops, dtype=torch.float64).mean(1)
        torch.testing.assert_close(means, rows.double(), atol=1e-6, rtol=0)
    figures = eraser_figures(items, found)
    for name, rows in (("comprehensiveness", expected.comp), ("sufficiency", expected.suff)):
        assert figures[f"{name}_aopc"] == pytest.approx(rows.mean().item(), abs=1e-6)
        assert figures[f"{name}_aopc_paper"] == pytest.approx(rows.mean().item() * 5 / 6, abs=1e-6)
    assert figures["auprc"] is figures["token_f1_micro"] is None  # nobody annotated these rows


def test_words_that_the_model_does_not_see_rank_last(electra: Backbone) -> None:
    row = Row("long", ("the plot was hardly good , but the music was not bad either .",))
    (item,) = encode_rows([row], electra.tokenizer, None, 8)
    count = len(row.texts[0].split())
    seen = sum(item.explainable)
    assert seen < count
    for sign, lowest in ((1.0, 0.0), (-1.0, -1.0)):
        scores = sign * torch.tensor(item.explainable).float()
        (found,) = eraser_scores(electra, [item], [scores], 0.5)
        assert len(found.soft[0]) == count
        assert found.soft[0][:seen] == (sign,) * seen
        assert set(found.soft[0][seen:]) == {lowest}
        assert found.hard == (((0, math.ceil(seen / 2)),),)


def test_queries_are_neither_scored_nor_removed(electra: Backbone) -> None:
    rows = [Row("q", ("a good film", "is it dull"), "x", (((2, 6),), ()), "", ("d", None))]
    (item,) = encode_rows(rows, electra.tokenizer, None, 32)
    (found,) = eraser_scores(electra, [item], rankings([item], 4), 1.0)
    assert found.hard == (((0, 3),),)
    assert len(found.soft) == 1
    kept = [place for place, yes in enumerate(item.explainable) if not yes]
    assert len(kept) > 3  # the query beside the special tokens
    model = copy.deepcopy(electra.model).double()
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([[item.input_ids[place] for place in kept]]),
            token_type_ids=torch.tensor([[item.token_type_ids[place] for place in kept]]),
        ).logits
    assert found.reduced.without == pytest.approx(logits.softmax(-1)[0].tolist(), abs=1e-5)
    assert found.reduced.only == pytest.approx(found.whole, abs=1e-6)


def test_both_documents_of_a_pair_are_ranked_together(electra: Backbone) -> None:
    (item,) = encode_rows([Row("p", ("not good .", "very dull"))], electra.tokenizer, None, 32)
    scores = torch.zeros(len(item.input_ids))
    words = [place for place, yes in enumerate(item.explainable) if yes]
    for place, score in zip(words, (0.1, 0.3, 0.1, 0.1, 0.4), strict=True):
        scores[place] = score
    (found,) = eraser_scores(electra, [item], [scores], 0.4)
    assert found.soft == (pytest.approx((0.1, 0.3, 0.1)), pytest.approx((0.1, 0.4)))
    assert found.hard == (((1, 2),), ((1, 2),))
    (found,) = eraser_scores(electra, [item], [scores], 0.8)
    assert found.hard == (((0, 3),), ((1, 2),))  # of equals the earlier


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_share_is_the_mean_length_of_human_rationales(marks: list[list[bool]]) -> None:
    rows, shares = [], []
    for number, row in enumerate(marks):
        spans = tuple((2 * word, 2 * word + 1) for word, mark in enumerate(row) if mark)
        rows.append(Row(str(number), (" ".join("a" * len(row)),), None, (spans,)))
        shares += [sum(row) / len(row)] if any(row) else []
    items = encode_rows(rows, load_backbone("tiny-electra", ("x", "y")).tokenizer, None, 32)
    expected = sum(shares) / len(shares) if shares else 0.2
    assert rationale_share(items) == pytest.approx(expected)


def test_figures_worked_by_hand() -> None:
    """The example of docs/evaluation.md."""
    row = Row("d", ("the plot was not good",), "bad", (((13, 21),),), "", ("d",))
    items = [Item([1], [0], [True], [0], [0], [(0, 3)], 0, None, row)]
    without = (0.8, 0.8, 0.7, 0.5, 0.4)  # the predicted class has 0.9 of the whole row
    only = (0.3, 0.3, 0.6, 0.8, 0.9)
    found = EraserScores(
        soft=((0.1, 0.3, 0.0, 0.4, 0.2),),
        hard=(((1, 2), (3, 4)),),
        prediction=1,
        whole=(0.1, 0.9),
        reduced=Reduced((0.5, 0.5), (0.15, 0.85)),
        by_percent={
            percent: Reduced((1 - a, a), (1 - b, b))
            for percent, a, b in zip(AOPC_BINS, without, only, strict=True)
        },
    )
    figures = eraser_figures(items, [found])
    expected = {
        "comprehensiveness": 0.9 - 0.5,
        "comprehensiveness_aopc": (0.1 + 0.1 + 0.2 + 0.4 + 0.5) / 5,  # 0.26
        "comprehensiveness_aopc_paper": 1.3 / 6,
        "sufficiency": 0.9 - 0.85,
        "sufficiency_aopc": (0.6 + 0.6 + 0.3 + 0.1 + 0.0) / 5,  # 0.32
        "sufficiency_aopc_paper": 1.6 / 6,
        # from the top: not +, plot -, good +, the -, was -; precision 1, 1/2, 2/3
        "auprc": 0.5 * 1 + 0.5 * (1 / 2 + 2 / 3) / 2,
        "average_precision": 0.5 * 1 + 0.5 * 2 / 3,
        "roc_auc": (3 + 2) / 6,
        "token_f1_micro": 0.5,  # one of two chosen, one of two marked
        "token_f1_macro": 0.5,
        "iou_f1_micro": 2 * 0.5 * 1 / 1.5,  # [3, 4) is half of [3, 5): a match
        "iou_f1_macro": 2 * 0.5 * 1 / 1.5,
    }
    assert figures == pytest.approx(expected)


def test_documents_without_a_marked_or_a_chosen_word_count_as_in_the_benchmark() -> None:
    """Two documents: in the first both are right, in the second (marked by nobody) one word is
    chosen in vain."""
    row = Row("p", ("so good", "a b"), "yes", (((3, 7),), ()), "", ("one", "two"))
    item = Item([1], [0], [True], [0], [0], [(0, 2)], 0, None, row)
    same = Reduced((1.0,), (1.0,))
    found = EraserScores(
        soft=((0.1, 0.6), (0.3, 0.0)),
        hard=(((1, 2),), ((0, 1),)),
        prediction=0,
        whole=(1.0,),
        reduced=same,
        by_percent=dict.fromkeys(AOPC_BINS, same),
    )
    figures = eraser_figures([item], [found])
    assert figures["auprc"] == pytest.approx((1 + 0.5) / 2)
    assert figures["average_precision"] == figures["roc_auc"] == 1
    assert figures["token_f1_micro"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert figures["token_f1_macro"] == pytest.approx((1 + 0) / 2)
    assert figures["iou_f1_micro"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert figures["iou_f1_macro"] == pytest.approx(2 * 0.5 * 1 / 1.5)  # p (1 + 0) / 2, r 1
