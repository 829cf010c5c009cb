"""Every choice of AOPC and every preset against loops of their own, in float64."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ivra.evaluation.reduced as reduced_module
from ivra.backbones import Backbone
from ivra.data import Item, Row, encode_rows
from ivra.errors import IvraError
from ivra.evaluation import (
    CHOICES,
    PRESETS,
    AopcSettings,
    ReducedLogits,
    aopc,
    aopc_of,
    aopc_settings,
    cuts,
    important_tokens,
    normalised,
)
from ivra.evaluation.cuts import top_sizes
from ivra.evaluation.prediction import TokenRows

TEXTS = (
    "a very dull film , and never funny at all .",
    "the plot was hardly good , but the music was not bad either ; we liked it .",
    "great !",
    "bad",
)
PAIRS = (("the film was good .", "we liked it"), ("bad", "not a good film at all ."))


def item_of(length: int, words: Sequence[int] | None = None) -> Item:
    """[CLS], ``length`` tokens, [SEP]; ids are the places."""
    count = length + 2
    word = [-1, *(range(length) if words is None else words), -1]
    return Item(
        list(range(count)), [0] * count, [False, *[True] * length, False], [-1, *[0] * length, -1],
        word, [(0, 0)] * count, 0, None, Row("row", ("",)),
    )  # fmt: skip


def size_by_hand(count: int, percent: float, rounding: str) -> int:
    share = Fraction(percent) * count / 100
    size = {"ceil": math.ceil, "round": round, "floor": math.floor, "floor-none": math.floor}
    found = size[rounding](share)
    return min(count, found if rounding == "floor-none" else max(1, found))


def top_by_hand(item: Item, scores: list[float], number: float, s: AopcSettings) -> set[int]:
    """The places of ``t_k``, by lists and sets."""
    length = len(item.input_ids)
    if s.protected == "first":
        loose = set(range(1, length))
    elif s.protected == "ends":
        loose = set(range(1, length - 1))
    else:
        loose = {i for i in range(length) if item.explainable[i]}
        if s.protected == "query" and 1 in item.segment:
            loose = {i for i in loose if item.segment[i] != 0}
    units: list[list[int]] = []
    by_word: dict[int, list[int]] = {}
    for i in range(length):
        if i not in loose:
            if s.ranked == "all":
                units.append([i])
        elif s.granularity == "word" and item.word[i] >= 0:
            if item.word[i] not in by_word:
                by_word[item.word[i]] = []
                units.append(by_word[item.word[i]])
            by_word[item.word[i]].append(i)
        else:
            units.append([i])
    pool = {"max": max, "sum": sum}[s.word_score]
    value = [pool([scores[i] for i in unit]) for unit in units]
    key = [abs(v) for v in value] if s.negative == "absolute" else value
    if s.cut == "percent":
        order = sorted(range(len(units)), key=lambda u: (-key[u], units[u][0]))
        chosen = set(order[: size_by_hand(len(units), number, s.rounding)])
    elif s.cut == "threshold":
        chosen = {u for u in range(len(units)) if key[u] >= number}
    else:
        low, high = (min(key), max(key)) if key else (0.0, 0.0)
        chosen = {u for u, k in enumerate(key) if high > low and (k - low) / (high - low) > number}
    if s.negative == "drop":
        chosen = {u for u in chosen if value[u] > 0}
    return {i for u in chosen for i in units[u]} & loose


def loose_by_hand(item: Item, s: AopcSettings) -> set[int]:
    return top_by_hand(item, [1.0] * len(item.input_ids), 100.0, aopc_settings(None, {
        "protected": s.protected, "bins": (100.0,)
    }))  # fmt: skip


choices = {name: st.sampled_from(values) for name, values in CHOICES.items()}
scores_of = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=14)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries(choices), scores_of, st.data())
def test_the_cut_is_that_of_loops(
    chosen: dict[str, str], scores: list[float], data: st.DataObject
) -> None:
    length = len(scores) - 2
    steps = data.draw(st.lists(st.integers(0, 1), min_size=length, max_size=length))
    words = [sum(steps[: i + 1]) for i in range(length)]
    item = item_of(length, words)
    percents = [1.0, 5.0, 10.0, 12.5, 20.0, 50.0, 62.5, 100.0]
    number = data.draw(
        st.sampled_from(percents if chosen["cut"] == "percent" else [0.0, 0.25, 0.4, 0.75])
    )
    made = AopcSettings(bins=(number,), **chosen)
    without, only = cuts(item, torch.tensor(scores), number, made)
    top = top_by_hand(item, scores, number, made)
    assert {i for i, kept in enumerate(without) if not kept} == top
    stays = set(range(length + 2)) - loose_by_hand(item, made)
    assert {i for i, kept in enumerate(only) if kept} == top | stays


def probabilities(
    backbone: Backbone, ids: list[int], types: list[int], hidden: set[int], wordless: bool
) -> Tensor:
    """Of one row, by transformers' eager attention in float64; positions never renumbered."""
    model = copy.deepcopy(backbone.model).double().eval()
    model.set_attn_implementation("eager")
    if wordless:
        with torch.no_grad():
            model.get_input_embeddings().weight.zero_()
    inputs = {"input_ids": torch.tensor([ids])}
    if hidden:
        visible = torch.tensor([[int(i not in hidden) for i in range(len(ids))]])
        inputs["attention_mask"] = visible
        inputs["position_ids"] = torch.arange(len(ids))[None]
        inputs["input_ids"] = torch.where(visible.bool(), inputs["input_ids"], backbone.pad_id)
    if not backbone.family.causal:
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        return model(**inputs).logits.softmax(-1)[0]


def reduced_by_hand(
    backbone: Backbone, item: Item, kept: set[int], s: AopcSettings, wordless: bool = False
) -> Tensor:
    length = len(item.input_ids)
    ids, types = item.input_ids, item.token_type_ids
    if s.removal in ("auto", "deletion"):
        kept = kept or {0}
        places = sorted(kept)
        return probabilities(
            backbone, [ids[i] for i in places], [types[i] for i in places], set(), wordless
        )
    if s.removal == "attention":
        return probabilities(backbone, ids, types, set(range(length)) - (kept or {0}), wordless)
    tokenizer = backbone.tokenizer
    other = tokenizer.mask_token_id if s.removal == "mask" else backbone.pad_id
    return probabilities(
        backbone, [ids[i] if i in kept else other for i in range(length)], types, set(), wordless
    )


def figures_by_hand(
    backbone: Backbone, item: Item, scores: list[float], s: AopcSettings
) -> dict[str, float]:
    """All figures of one row."""
    assert s.bins is not None
    length = len(item.input_ids)
    loose = loose_by_hand(item, s)
    stays = set(range(length)) - loose
    whole = probabilities(backbone, item.input_ids, item.token_type_ids, set(), False)
    y = int(whole.argmax())
    rows: dict[str, list[float]] = {
        n: [] for n in ("comp", "suff", "clipped_comp", "clipped_suff", "norm_comp", "norm_suff")
    }
    before: set[int] = set()
    for number in s.bins:
        top = top_by_hand(item, scores, number, s)
        comp = float(whole[y] - reduced_by_hand(backbone, item, set(range(length)) - top, s)[y])
        suff = float(whole[y] - reduced_by_hand(backbone, item, stays | top, s)[y])
        if s.null == "special":
            null = reduced_by_hand(backbone, item, stays, s)
        else:
            null = reduced_by_hand(backbone, item, stays | top, s, wordless=True)
        nd = min(1.0, max(0.0, float(whole[y] - null[y])))
        c, f = max(0.0, comp), 1 - max(0.0, suff)
        if s.guard == "zero":
            nc, ns = (c / nd, (f - 1 + nd) / nd) if nd >= 1e-5 else (0.0, 0.0)
        else:
            zero = 1 - nd - 1e-4
            ns = (f - zero) / (1 - zero)
            nc = c / (1 - (zero - 1e-4))
        values = (comp, suff, c, f, min(1.0, max(0.0, nc)), min(1.0, max(0.0, ns)))
        if s.normaliser != "distinct" or top != before:
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
        before = top
    extra = s.normaliser == "bins+1"
    if not rows["comp"]:
        return {name: float(name == "suff") for name in rows}
    return {name: sum(found) / (len(found) + extra) for name, found in rows.items()}


def check(backbone: Backbone, items: list[Item], made: AopcSettings, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(len(i.input_ids), generator=generator) - 0.3 for i in items]
    found = aopc(backbone, items, {"any": scores}, made)["any"]
    largest = 0.0
    for row, (item, given_scores) in enumerate(zip(items, scores, strict=True)):
        expected = figures_by_hand(backbone, item, given_scores.tolist(), made)
        for name, value in expected.items():
            got = getattr(found, name)[row].item()
            # The normalised figures divide by what may be small.
            near = 1e-3 if name.startswith("norm") else 2e-5
            assert got == pytest.approx(value, abs=near), (name, row)
        largest = max(largest, abs(expected["comp"]))
    assert largest > 0.003


@pytest.fixture
def texts(electra: Backbone) -> list[Item]:
    return encode_rows([Row(t, (t,)) for t in TEXTS], electra.tokenizer, None, 64)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_their_formulas(backbone: Backbone, texts: list[Item], name: str) -> None:
    made = PRESETS[name]
    if name == "carton":
        made = replace(made, bins=(0.2,))
    check(backbone, texts[:3], made)


@pytest.mark.parametrize(
    "change",
    [
        {"removal": "mask"},
        {"removal": "pad"},
        {"removal": "attention"},
        {"granularity": "word", "word_score": "sum"},
        {"negative": "absolute", "normaliser": "bins+1"},
        {"cut": "min-max", "bins": (0.1, 0.5, 0.9)},
        {"null": "zero-embeddings", "guard": "shift"},
    ],
    ids=str,
)
def test_choices_are_their_formulas(
    electra: Backbone, texts: list[Item], change: dict[str, object]
) -> None:
    check(electra, texts[:2], aopc_settings("eraser", {"bins": (10.0, 50.0), **change}))


def test_hidden_tokens_of_a_decoder_keep_their_places(
    loud_gpt2: Backbone, texts: list[Item]
) -> None:
    check(loud_gpt2, texts[:2], AopcSettings(bins=(20.0, 60.0), removal="attention"))


@pytest.mark.parametrize("protected", ["special", "query", "ends"])
def test_pairs(electra: Backbone, protected: str) -> None:
    """The types go with the tokens; ``ends`` lets the separator between the texts go."""
    items = encode_rows([Row(a, (a, b)) for a, b in PAIRS], electra.tokenizer, None, 64)
    check(electra, items, AopcSettings(bins=(20.0, 60.0, 100.0), protected=protected))


def test_little_memory_gives_the_same_figures(electra: Backbone, texts: list[Item]) -> None:
    scores = [torch.arange(len(i.input_ids)).float() for i in texts]
    many, few = (
        aopc(electra, texts, {"any": scores}, live_tokens=live)["any"] for live in (2**22, 1)
    )
    torch.testing.assert_close(many.comp, few.comp, atol=1e-6, rtol=0)
    torch.testing.assert_close(many.norm_suff, few.norm_suff, atol=1e-4, rtol=0)


def test_a_mask_token_is_needed_to_mask(loud_gpt2: Backbone, texts: list[Item]) -> None:
    loud_gpt2.tokenizer.mask_token = None
    with pytest.raises(IvraError, match=r"^removal 'mask' of AOPC needs a mask token.*deletion"):
        aopc(loud_gpt2, texts, {"a": [torch.zeros(len(i.input_ids)) for i in texts]},
             AopcSettings(removal="mask"))  # fmt: skip


def by_hand_logits(rows: list[list[float]]) -> Tensor:
    """Logits whose softmax has the first class at the given probabilities, ``(1, K, 2)``."""
    return torch.tensor([[math.log(p), math.log(1 - p)] for p in rows[0]])[None]


def test_a_worked_row() -> None:
    """p = 0.9; without: 0.8, 0.5, 0.2; alone: 0.5, 0.8, 0.95; nothing: 0.5 (docs)."""
    full = torch.tensor([[math.log(0.9), math.log(0.1)]])
    reduced = ReducedLogits(
        by_hand_logits([[0.8, 0.5, 0.2]]),
        by_hand_logits([[0.5, 0.8, 0.95]]),
        by_hand_logits([[0.5]]),
        torch.ones(1, 3, dtype=torch.bool),
    )
    found = aopc_of(full, reduced, AopcSettings(bins=(1.0, 2.0, 3.0)))
    assert found.comp.item() == pytest.approx((0.1 + 0.4 + 0.7) / 3)
    assert found.suff.item() == pytest.approx((0.4 + 0.1 - 0.05) / 3)
    assert found.clipped_suff.item() == pytest.approx((0.6 + 0.9 + 1.0) / 3)
    assert found.norm_comp.item() == pytest.approx((0.25 + 1.0 + 1.0) / 3)
    assert found.norm_suff.item() == pytest.approx((0.0 + 0.75 + 1.0) / 3, abs=1e-6)
    paper = aopc_of(full, reduced, AopcSettings(bins=(1.0, 2.0, 3.0), normaliser="bins+1"))
    assert paper.comp.item() == pytest.approx(1.2 / 4)
    distinct = AopcSettings(bins=(1.0, 2.0, 3.0), normaliser="distinct")
    some = reduced._replace(counted=torch.tensor([[False, True, True]]))
    assert aopc_of(full, some, distinct).comp.item() == pytest.approx((0.4 + 0.7) / 2)
    none = aopc_of(full, reduced._replace(counted=torch.zeros(1, 3, dtype=torch.bool)), distinct)
    assert (none.comp.item(), none.suff.item()) == (0.0, 1.0)


def test_normalised_guards() -> None:
    one = torch.tensor([[0.3]])
    comp, suff = normalised(one, 1 - one, torch.zeros(1, 1))
    assert (comp.item(), suff.item()) == (0.0, 0.0)
    comp, suff = normalised(torch.tensor([[1e-4]]), 1 - torch.tensor([[0.0]]), torch.zeros(1, 1),
                            "shift")  # fmt: skip
    assert comp.item() == pytest.approx(0.5)
    assert suff.item() == pytest.approx(1.0)


def test_important_tokens_of_a_worked_row() -> None:
    """Scores 0, 1, 2, 4 are 0, .25, .5, 1: above .1 to .9 are 3, 3, 2, 2, 1, 1, 1, 1, 1."""
    item = item_of(4)
    found = important_tokens([item], [torch.tensor([9.0, 0, 1, 2, 4, -9])])
    assert found.by_threshold == pytest.approx([0.75, 0.75, 0.5, 0.5, *[0.25] * 5])
    assert found.share.item() == pytest.approx(15 / 36)
    flat = important_tokens([item], [torch.ones(6)])
    assert flat.share.item() == 0


def test_unknown_choices_list_the_known_ones() -> None:
    with pytest.raises(IvraError, match=r"^unknown AOPC preset 'erasr'. Did you mean 'eraser'"):
        aopc_settings("erasr")
    with pytest.raises(IvraError, match=r"^unknown removal of AOPC 'delete'.*Choose from: att"):
        AopcSettings(removal="delete")
    with pytest.raises(IvraError, match=r"^a bin of AOPC is 120.0: expected percentages above 0"):
        AopcSettings(bins=(120.0,))
    with pytest.raises(IvraError, match=r"^the bins of AOPC are empty"):
        AopcSettings(bins=())
    with pytest.raises(IvraError, match=r"^row 0 has scores of shape \(2,\).*each of its 6 tok"):
        cuts(item_of(4), torch.zeros(2), 10.0)


def test_a_result_says_every_choice() -> None:
    for name, made in PRESETS.items():
        described = made.described()
        assert described["preset"] == name
        assert {n: described[n] for n in CHOICES} == {n: asdict(made)[n] for n in CHOICES}
        assert described["bins"] == list(made.bins or ())
    assert AopcSettings(removal="pad").described()["preset"] is None
    changed = aopc_settings("carton", {"cut": "percent"}).with_bins((7.0,))
    assert changed.bins == (7.0,)


@pytest.mark.parametrize(
    ("count", "percent", "sizes"),
    [(30, 5.0, (2, 2, 1, 1)), (50, 5.0, (3, 2, 2, 2)), (9, 10.0, (1, 1, 1, 0))],
)
def test_the_worked_sizes_of_the_docs(
    count: int, percent: float, sizes: tuple[int, int, int, int]
) -> None:
    found = [
        int(top_sizes(torch.tensor([count]), AopcSettings(bins=(percent,), rounding=rounding)))
        for rounding in ("ceil", "round", "floor", "floor-none")
    ]
    assert tuple(found) == sizes


def test_memory_is_bounded_on_a_large_set(
    electra: Backbone, texts: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of rows, a chunk asks for no more tokens than it may."""
    asked: list[int] = []
    once: list[int] = []
    plain = reduced_module.ReducedRows.add

    def counting(self: reduced_module.ReducedRows, top: Tensor) -> reduced_module.ReducedPlaces:
        asked.append(2 * top.numel())
        return plain(self, top)

    def no_model(backbone: Backbone, rows: TokenRows, budget: int, *, no_words: bool) -> Tensor:
        once.append(int(rows.lengths.sum()))
        return torch.zeros(len(rows.lengths), 2)

    monkeypatch.setattr(reduced_module.ReducedRows, "add", counting)
    monkeypatch.setattr(reduced_module, "predict_rows", no_model)
    items = [texts[number % len(texts)] for number in range(10_000)]
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(len(i.input_ids), generator=generator) for i in items]
    made = AopcSettings(bins=(10.0, 50.0))
    aopc(electra, items, {"it": scores}, made, torch.zeros(10_000, 2), live_tokens=20_000)
    assert max(asked) <= 20_000
    assert max(once) <= 20_000
    needed = 2 * 2 * sum(len(item.input_ids) for item in items)
    assert needed <= sum(asked) <= 1.05 * needed  # padding in the chunks where the length changes
