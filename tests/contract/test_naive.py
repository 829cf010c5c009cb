"""Criteria and metrics against loops over rows, tokens and features, in Python's own floats."""

import copy
import itertools
import math
import random
from fractions import Fraction
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ivra.contract import Trial
from ivra.contract.models import StandIn, Tiny, tiny, tiny_student
from ivra.contract.rows import PAD, make_batch, make_items
from ivra.contract.trial import Stage
from ivra.data import Item
from ivra.evaluation import (
    AopcSettings,
    aopc,
    average_precision,
    consistency,
    plausibility_auc,
    recall_at,
    token_units,
    word_units,
)
from ivra.explainers import ModuleExplainer
from ivra.losses import (
    AOPC_BINS,
    Comprehensiveness,
    Consistency,
    Simulatability,
    Sufficiency,
    spearman,
)

torch.set_num_threads(1)

MIX = 1e-4
shapes = given(
    lengths=st.lists(st.integers(1, 12), min_size=3, max_size=5),
    seed=st.integers(0, 1000),
    side=st.sampled_from(["right", "left"]),
)


def few(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, derandomize=True)


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def columns(table: Tensor) -> list[list[float]]:
    return table.T.tolist()


def stand_in_logits(model: StandIn, ids: list[int]) -> list[float]:
    shares = [math.exp(float(model.weights[i])) for i in ids]
    features = [model.embeddings[i].tolist() for i in ids]
    pooled = [
        math.fsum(s * f[e] for s, f in zip(shares, features, strict=True)) / math.fsum(shares)
        for e in range(len(features[0]))
    ]
    inner = [math.tanh(dot(pooled, column)) for column in columns(model.inner)]
    return [dot(inner, column) for column in columns(model.outer)]


def log_share(logits: list[float], which: int) -> float:
    return logits[which] - math.log(math.fsum(math.exp(value) for value in logits))


def reduced(item: Item, saliency: list[float], percent: float, only: bool) -> list[int]:
    """Ids with the top deleted, or with it alone beside what is not explainable."""
    places = [place for place, yes in enumerate(item.explainable) if yes]
    ranked = sorted(places, key=lambda place: (-saliency[place], place))
    top = ranked[: max(1, math.ceil(Fraction(percent) * len(places) / 100))]
    return [
        token
        for place, token in enumerate(item.input_ids)
        if not item.explainable[place] or (place in top) is only
    ]


def own_saliency(saliency: Tensor, mask: Tensor) -> list[list[float]]:
    return [row[visible].tolist() for row, visible in zip(saliency, mask, strict=True)]


@shapes
@few(15)
@pytest.mark.parametrize("only", [False, True], ids=["comp", "suff"])
def test_comp_and_suff_are_a_loop_over_rows_and_bins(
    only: bool, lengths: list[int], seed: int, side: str
) -> None:
    form = Sufficiency if only else Comprehensiveness
    trial = Trial(form.build, tuple(lengths), seed)
    batch = make_batch(trial.items, side=side)
    model = trial.model()
    view = Stage(model).view(batch)
    found = trial.values(view)
    drawn = random.Random(seed).choice(AOPC_BINS)
    for row, (item, saliency) in enumerate(
        zip(trial.items, own_saliency(view.saliency, batch.attention_mask), strict=True)
    ):
        whole = stand_in_logits(model, item.input_ids)
        y_hat = whole.index(max(whole))
        log_full = log_share(whole, y_hat)
        logs = {
            k: log_share(stand_in_logits(model, reduced(item, saliency, k, only)), y_hat)
            for k in AOPC_BINS
        }
        drops = [math.exp(log_full) - math.exp(value) for value in logs.values()]
        assert float(found.metric[row]) == pytest.approx(math.fsum(drops) / len(drops), abs=1e-9)
        cost = (log_full - logs[drawn]) if only else (logs[drawn] - log_full)
        margin = 0.1 if only else 1.0
        assert float(found.terms[form.name][row]) == pytest.approx(
            margin + max(-margin, cost), abs=1e-9
        )


def distance(a: list[list[float]], b: list[list[float]]) -> float:
    width = len(a[0])
    pairs = itertools.zip_longest(a, b, fillvalue=[0.0] * width)
    return math.sqrt(math.fsum((x - y) ** 2 for p, q in pairs for x, y in zip(p, q, strict=True)))


def smoothed(rows: list[list[float]], flags: list[list[bool]]) -> list[list[float]]:
    """Every row at every place, with uniform mass on places explainable in any row."""
    places = range(max(map(len, rows)))
    support = [any(len(f) > p and f[p] for f in flags) for p in places]
    full = [[row[p] if p < len(row) else 0.0 for p in places] for row in rows]
    return [
        [(1 - MIX) * row[p] + MIX / sum(support) if support[p] else 0.0 for p in places]
        for row in full
    ]


def kl(p: list[float], q: list[float]) -> float:
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def ranks(values: list[float]) -> list[float]:
    """One more than the number of smaller values, plus half the number of other equal ones."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def rho(x: list[float], y: list[float]) -> float | None:
    a, b = ranks(x), ranks(y)
    mean = (len(x) + 1) / 2
    spread = math.sqrt(
        math.fsum((v - mean) ** 2 for v in a) * math.fsum((v - mean) ** 2 for v in b)
    )
    if spread == 0:
        return None
    return math.fsum((v - mean) * (w - mean) for v, w in zip(a, b, strict=True)) / spread


def table(hidden: list[list[list[float]]], even: list[list[float]]) -> tuple[list, list]:
    """Divergences and distances of all ordered pairs."""
    rows = range(len(even))
    return (
        [[kl(even[i], even[j]) if i != j else 0.0 for j in rows] for i in rows],
        [[distance(hidden[i], hidden[j]) for j in rows] for i in rows],
    )


def pair_rho(divergences: list, distances: list) -> float | None:
    pairs = list(itertools.combinations(range(len(distances)), 2))
    return rho(
        [(divergences[i][j] + divergences[j][i]) / 2 for i, j in pairs],
        [distances[i][j] for i, j in pairs],
    )


@shapes
@few(15)
def test_cons_is_a_loop_over_pairs(lengths: list[int], seed: int, side: str) -> None:
    if sum(length > 1 for length in lengths) < 3:
        return  # rows of one token are explained alike: rounding ranks them
    trial = Trial(Consistency.build, tuple(lengths), seed)
    batch = make_batch(trial.items, side=side)
    view = Stage(trial.model()).view(batch)
    assert view.hidden is not None
    mask = batch.attention_mask
    hidden = [states[visible].tolist() for states, visible in zip(view.hidden, mask, strict=True)]
    even = smoothed(own_saliency(view.saliency, mask), [i.explainable for i in trial.items])
    divergences, distances = table(hidden, even)
    count = len(lengths)
    near = [[1 / (d + 1e-8) for d in row] for row in distances]
    pairs = list(itertools.permutations(range(count), 2))
    scale = math.fsum(divergences[i][j] for i, j in pairs) / len(pairs)
    scale *= math.fsum(near[i][j] for i, j in pairs) / len(pairs)
    found = trial.values(view)
    for i in range(count):
        ratio = math.fsum(divergences[i][j] * near[i][j] for j in range(count) if j != i)
        assert float(found.terms["cons"][i]) == pytest.approx(ratio / (count - 1) / scale, rel=1e-6)
    if len({round(v, 12) for row in divergences for v in row}) == count * (count - 1) + 1:
        expected = pair_rho(divergences, distances)
        assert found.metric.tolist() == pytest.approx([expected] * count, abs=1e-9)


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=20))
@few(60)
def test_spearman_is_a_loop_over_ranks(pairs: list[tuple[int, int]]) -> None:
    x, y = ([float(v) for v in side] for side in zip(*pairs, strict=True))
    found = spearman(torch.tensor(x).double(), torch.tensor(y).double())
    assert found == (None if (expected := rho(x, y)) is None else pytest.approx(expected))


@lru_cache
def plain(name: str) -> torch.nn.Module:
    model = copy.deepcopy(tiny(name).model).eval()
    model.set_attn_implementation("eager")
    return model


def alone(name: str, ids: list[int], hidden: bool = False) -> tuple[list[float], list]:
    """Logits, and states averaged over layers, of a row by transformers itself."""
    with torch.no_grad():
        output = plain(name)(input_ids=torch.tensor([ids]), output_hidden_states=hidden)
    states = torch.stack(output.hidden_states[1:]).mean(0)[0].tolist() if hidden else []
    return output.logits[0].tolist(), states


@shapes
@few(4)
@pytest.mark.parametrize("name", ["tiny-electra", "tiny-gpt2"])
def test_aopc_is_a_loop_over_rows_and_bins(
    name: str, lengths: list[int], seed: int, side: str
) -> None:
    backbone, items = tiny(name), make_items(lengths, seed)
    backbone.tokenizer = copy.copy(backbone.tokenizer)
    backbone.tokenizer.padding_side = side
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randint(0, 4, (n + 2,), generator=generator).float() for n in lengths]
    bins = (10.0, 50.0)
    found = aopc(backbone, items, {"any": scores}, AopcSettings(bins=bins), budget=20)["any"]
    for row, (item, ranking) in enumerate(zip(items, scores, strict=True)):
        whole, _ = alone(name, item.input_ids)
        y_hat = whole.index(max(whole))
        for values, only in ((found.comp, False), (found.suff, True)):
            kept = [reduced(item, ranking.tolist(), k, only) for k in bins]
            shares = [math.exp(log_share(alone(name, ids)[0], y_hat)) for ids in kept]
            expected = math.exp(log_share(whole, y_hat)) - math.fsum(shares) / len(shares)
            assert float(values[row]) == pytest.approx(expected, abs=1e-5)


@shapes
@few(4)
@pytest.mark.parametrize("name", ["tiny-electra", "tiny-gpt2"])
def test_consistency_is_a_loop_over_pairs(
    name: str, lengths: list[int], seed: int, side: str
) -> None:
    lengths = [length + 2 for length in lengths]
    backbone, items = tiny(name), make_items(lengths, seed)
    backbone.tokenizer = copy.copy(backbone.tokenizer)
    backbone.tokenizer.padding_side = side
    module = Tiny(backbone).module
    found = consistency(backbone, items, [ModuleExplainer(module)])["ivra"]
    hidden, saliencies = [], []
    for item in items:
        hidden.append(alone(name, item.input_ids, hidden=True)[1])
        one = make_batch([item])
        encoding = backbone.encode(one, module)
        saliency = module(encoding.readings, one.explainable, encoding.predictions)
        saliencies.append(saliency[0].tolist())
    even = smoothed(saliencies, [item.explainable for item in items])
    assert found == pytest.approx(pair_rho(*table(hidden, even)), abs=1e-9)


@shapes
@few(25)
def test_plausibility_is_a_loop_over_pairs_of_tokens(
    lengths: list[int], seed: int, side: str
) -> None:
    items = make_items(lengths, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randint(0, 4, (n + 2,), generator=generator).float() for n in lengths]
    shares = []
    for item, ranking in zip(items, scores, strict=True):
        values = ranking.tolist()
        places = [place for place, yes in enumerate(item.explainable) if yes]
        marked = [p for p in places if item.rationale and item.rationale[p]]
        others = [p for p in places if p not in marked]
        if item.rationale is not None and marked and others:
            wins = [
                (values[a] > values[b]) + (values[a] == values[b]) / 2
                for a in marked
                for b in others
            ]
            shares.append(math.fsum(wins) / len(wins))
    auc, counted = plausibility_auc(items, scores)
    assert counted == len(shares)
    assert auc == (pytest.approx(math.fsum(shares) / len(shares)) if shares else None)


@shapes
@few(25)
def test_precision_and_recall_are_loops_over_the_units_at_or_above_each_score(
    lengths: list[int], seed: int, side: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    for item in make_items(lengths, seed):
        ranking = torch.randint(0, 4, (len(item.input_ids),), generator=generator).float()
        places = [place for place, yes in enumerate(item.explainable) if yes]
        words = sorted({item.word[place] for place in places})
        parts = {
            "token": [[place] for place in places],
            "word": [[p for p in places if item.word[p] == word] for word in words],
        }
        for kind, units in (("token", token_units), ("word", word_units)):
            found = units(item, ranking)
            if item.rationale is None:
                assert found is None
                continue
            scores = [math.fsum(ranking[p].item() for p in part) for part in parts[kind]]
            marks = [any(item.rationale[p] for p in part) for part in parts[kind]]
            assert found is not None
            assert found.scores.tolist() == pytest.approx(scores)
            assert found.marks.tolist() == marks
            if not any(marks):
                continue
            precision, before = 0.0, 0.0
            for level in sorted(set(scores), reverse=True):
                above = [mark for mark, score in zip(marks, scores, strict=True) if score >= level]
                recall = sum(above) / sum(marks)
                precision += (recall - before) * sum(above) / len(above)
                before = recall
            assert average_precision(found) == pytest.approx(precision, abs=1e-12)
            order = sorted(range(len(scores)), key=lambda unit: (-scores[unit], unit))
            for k in (1, sum(marks)):
                hits = sum(marks[unit] for unit in order[:k])
                assert recall_at(found, k) == pytest.approx(hits / sum(marks), abs=1e-12)


@shapes
@few(4)
def test_the_student_agrees_where_its_row_alone_says_what_the_model_says(
    lengths: list[int], seed: int, side: str
) -> None:
    criterion = Simulatability(tiny_student())
    trial = Trial(lambda setup: criterion, tuple(lengths), seed)
    view = Stage(trial.model()).view(make_batch(trial.items, pad=PAD, side=side))
    expected = []
    for item in trial.items:
        student, _ = alone("tiny-electra", item.input_ids)
        model = stand_in_logits(trial.model(), item.input_ids)
        expected.append(float(student.index(max(student)) == model.index(max(model))))
    assert criterion.metric(view).tolist() == expected
