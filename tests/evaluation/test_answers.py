"""AOPC of answers against a loop in float64 that asks transformers itself, and a run's figures."""

import copy
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Item, Row, collate, encode_questions
from ivra.errors import IvraError
from ivra.evaluation import AopcSettings, aopc, predict, predicted
from ivra.losses import Comprehensiveness, Sufficiency, View
from ivra.tasks import QuestionAnswering

BINS = (1.0, 10.0, 30.0, 60.0)
TASK = QuestionAnswering(max_answer_length=4)
Questions = Callable[[int, int], list[Row]]
Span = tuple[int, int]


@pytest.fixture(params=["tiny-electra", "tiny-gpt2"])
def answerer(request: pytest.FixtureRequest) -> Backbone:
    """An encoder and a decoder that answer questions, with loud random weights."""
    backbone = load_backbone(request.param, tasks=(TASK,), seed=3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4 if backbone.family.causal else 7)
    return backbone.eval()


def softmaxes(
    backbone: Backbone, ids: Sequence[int], types: Sequence[int], open_: list[int]
) -> Tensor:
    """Start and end probabilities over the open places of one row, ``(2, L)``, by Hugging Face."""
    model = copy.deepcopy(backbone.model).double().eval()
    model.set_attn_implementation("eager")
    inputs = {"input_ids": torch.tensor([ids])}
    if model.config.model_type != "gpt2":
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        output = model(**inputs)
    found = torch.zeros(2, len(ids), dtype=torch.float64)
    for side, logits in enumerate((output.start_logits[0], output.end_logits[0])):
        exp = [math.exp(float(logits[place])) for place in open_]
        for place, value in zip(open_, exp, strict=True):
            found[side, place] = value / sum(exp)
    return found


def context_of(item: Item) -> list[int]:
    return [place for place, segment in enumerate(item.segment) if segment == 1]


def best(probabilities: Tensor) -> Span:
    start, end = probabilities.tolist()
    spans = [(a, b) for a in range(len(start)) for b in range(a, min(a + 4, len(end)))]
    return max(spans, key=lambda span: start[span[0]] * end[span[1]])


def reduced(backbone: Backbone, item: Item, stays: list[int], span: Span, removal: str) -> float:
    """``p(span)`` when of the row the places ``stays`` alone are left."""
    mask = backbone.tokenizer.mask_token_id
    if removal == "mask":
        ids = [token if p in stays else mask for p, token in enumerate(item.input_ids)]
        found = softmaxes(backbone, ids, item.token_type_ids, context_of(item))
        return float(found[0, span[0]] * found[1, span[1]])
    if not set(span) <= set(stays):
        return 0.0
    ids, types = ([values[p] for p in stays] for values in (item.input_ids, item.token_type_ids))
    open_ = [place for place, p in enumerate(stays) if p in context_of(item)]
    found = softmaxes(backbone, ids, types, open_)
    return float(found[0, stays.index(span[0])] * found[1, stays.index(span[1])])


@pytest.mark.parametrize("removal", ["mask", "deletion"])
def test_aopc_is_what_a_loop_by_hand_gives(
    answerer: Backbone, questions: Questions, removal: str
) -> None:
    rows = questions(4, 9)
    rows[3] = Row("short", ("the soup ?", "bad ."), answers=())
    items = encode_questions(rows, answerer.tokenizer, 64, 8)
    generator = torch.Generator().manual_seed(1)
    given = {
        name: [torch.randint(0, 5, (len(i.input_ids),), generator=generator).float() for i in items]
        for name in ("one", "other")
    }
    settings = AopcSettings(bins=BINS, removal=removal)
    figures = aopc(answerer, items, given, settings, budget=96)
    largest = 0.0
    for name, scores in given.items():
        for row, item in enumerate(items):
            whole = softmaxes(answerer, item.input_ids, item.token_type_ids, context_of(item))
            span = best(whole)
            full = float(whole[0, span[0]] * whole[1, span[1]])
            drops: list[list[float]] = [[], []]
            for percent in BINS:
                places = [place for place, yes in enumerate(item.explainable) if yes]
                count = max(1, math.ceil(Fraction(percent) * len(places) / 100))
                ranked = sorted(places, key=lambda p: (-float(scores[row][p]), p))
                top = ranked[:count]
                every = range(len(item.input_ids))
                without = [p for p in every if p not in top]
                only = [p for p in every if p in top or p not in places]
                for kind, stays in enumerate((without, only)):
                    drops[kind].append(full - reduced(answerer, item, stays, span, removal))
            found = figures[name].comp[row].item(), figures[name].suff[row].item()
            expected = [sum(kind) / len(BINS) for kind in drops]
            assert found == pytest.approx(expected, abs=2e-5)
            largest = max(largest, *map(abs, expected))
    assert largest > 0.005


def test_the_default_removal_is_the_mask_token_and_says_so(
    answerer: Backbone, questions: Questions
) -> None:
    settled = AopcSettings().settled(answerer)
    assert settled.described()["removal"] == "mask"
    answerer.tokenizer.mask_token = None
    assert AopcSettings().settled(answerer).removal == "pad"
    assert AopcSettings(removal="deletion").settled(answerer).removal == "deletion"
    assert AopcSettings().settled(load_backbone("tiny-electra")).removal == "deletion"


def test_one_window_a_row_is_judged_the_one_that_answers(
    answerer: Backbone, questions: Questions
) -> None:
    windows = encode_questions(questions(5, 2), answerer.tokenizer, 14, 2)
    assert len(windows) > 10
    items, logits = predicted(answerer, windows)
    assert [item.row.id for item in items] == [f"q2-{number}" for number in range(5)]
    every = predict(answerer, windows)
    totals = [TASK.score(one[None], TASK.predict(one[None])).item() for one in every]
    for item, row in zip(items, logits, strict=True):
        own = [t for w, t in zip(windows, totals, strict=True) if w.row is item.row]
        assert TASK.score(row[None], TASK.predict(row[None])).item() == pytest.approx(max(own))


def test_hidden_answers_are_not_there(answerer: Backbone, questions: Questions) -> None:
    """Attention removal in evaluation: a hidden token keeps its place and can be no answer."""
    items = encode_questions(questions(3, 4), answerer.tokenizer, 64, 8)
    logits = predict(answerer, items)
    spans = TASK.predict(logits).tolist()
    scores = []
    for item, (first, _) in zip(items, spans, strict=True):
        row = torch.zeros(len(item.input_ids))
        row[first] = 1.0
        scores.append(row)
    settings = AopcSettings(bins=(1.0,), removal="attention")
    found = aopc(answerer, items, {"start": scores}, settings, logits)["start"]
    full = TASK.probability(logits, torch.tensor(spans))
    torch.testing.assert_close(found.comp, full, atol=1e-6, rtol=0)


def test_mask_removal_without_a_mask_token_is_one_line(
    answerer: Backbone, questions: Questions
) -> None:
    answerer.tokenizer.mask_token = None
    items = encode_questions(questions(1, 4), answerer.tokenizer, 64, 8)
    scores = {"zero": [torch.zeros(len(items[0].input_ids))]}
    with pytest.raises(IvraError, match="needs a mask token"):
        aopc(answerer, items, scores, AopcSettings(removal="mask"))


@pytest.mark.parametrize(
    ("training", "evaluation"), [("embedding", "mask"), ("attention", "deletion")]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_training_measures_what_evaluation_measures(
    answerer: Backbone, questions: Questions, training: str, evaluation: str, side: str
) -> None:
    rows = [*questions(3, 6), Row("short", ("the soup ?", "bad ."), answers=())]
    items = encode_questions(rows, answerer.tokenizer, 64, 8)
    module = InterpretableAttention(answerer.sizes)

    def view(batch: Batch) -> View:
        encoding = answerer.encode(batch, module)
        saliency = module(encoding.readings, batch.explainable, encoding.classes)
        logits = encoding.logits
        return View(
            batch, logits, saliency, None, lambda k: answerer.rerun(batch, k, training), view, TASK
        )

    with torch.no_grad():
        shown = view(collate(items, answerer.pad_id, side))
        own = [shown.saliency[row, shown.batch.attention_mask[row]] for row in range(len(items))]
        settings = AopcSettings(bins=BINS, removal=evaluation)
        found = aopc(answerer, items, {"own": own}, settings)["own"]
        comp = Comprehensiveness(bins=BINS).metric(shown)
        suff = Sufficiency(bins=BINS).metric(shown)
        torch.testing.assert_close(comp, found.comp, atol=2e-5, rtol=0)
        torch.testing.assert_close(suff, found.suff, atol=2e-5, rtol=0)
        for row, item in enumerate(items):
            alone = view(collate([item], answerer.pad_id))
            for criterion, together in ((Comprehensiveness, comp), (Sufficiency, suff)):
                one = criterion(bins=BINS).metric(alone)
                torch.testing.assert_close(one[0], together[row], atol=2e-5, rtol=0)


def test_a_criterion_that_asks_the_task_serves_both(
    answerer: Backbone, questions: Questions
) -> None:
    """The one of the docs: how unlikely the prediction gets as tokens are kept by saliency."""
    items = encode_questions(questions(2, 6), answerer.tokenizer, 64, 8)
    batch = collate(items, answerer.pad_id)
    saliency = batch.explainable.float() / batch.explainable.sum(-1, keepdim=True)
    with torch.no_grad():
        logits = answerer.encode(batch).logits
        alone = answerer.rerun(batch, saliency, "embedding")
        view = View(batch, logits, saliency, None, lambda k: alone, lambda b: view, TASK)
        doubt = -view.task.log_prob(view.rerun(view.saliency), view.predictions)
    for row, (first, last) in enumerate(view.predictions.tolist()):
        start, end = alone[row].double().exp().unbind(-1)
        p = start[first] / start.sum() * end[last] / end.sum()
        assert doubt[row].item() == pytest.approx(-math.log(float(p)), abs=1e-4)
