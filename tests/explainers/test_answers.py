"""Explainers of answers: what the span's logits and its probability owe to each token."""

import pytest
import torch

from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Row, collate, encode_questions
from ivra.explainers import STATIC, static_explainer
from ivra.tasks import QuestionAnswering

TASK = QuestionAnswering()
ROWS = [
    Row("long", ("the plot ?", "the plot was dull . the music was good .")),
    Row("short", ("the soup ?", "bad .")),
]


@pytest.fixture(params=["tiny-electra", "tiny-gpt2"])
def answerer(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param, tasks=(TASK,), seed=3).eval()


def batch_of(backbone: Backbone, side: str = "right") -> Batch:
    items = encode_questions(ROWS, backbone.tokenizer, 64, 8)
    return collate(items, backbone.pad_id, side)


@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_are_those_of_the_spans_two_logits(answerer: Backbone, side: str) -> None:
    batch = batch_of(answerer, side)
    found = static_explainer("input-x-gradient").explain(answerer, batch)
    for row, item in enumerate(batch.items):
        embeddings = answerer.embeddings(torch.tensor([item.input_ids])).detach().requires_grad_()
        inputs = {"inputs_embeds": embeddings}
        if answerer.family.model_type != "gpt2":
            inputs["token_type_ids"] = torch.tensor([item.token_type_ids])
        output = answerer.model(**inputs)
        first, last = answerer.encode(collate([item], answerer.pad_id)).predictions[0].tolist()
        (output.start_logits[0, first] + output.end_logits[0, last]).backward()
        assert embeddings.grad is not None
        expected = (embeddings * embeddings.grad).sum(-1)[0].detach()
        expected = expected * torch.tensor(item.explainable)
        own = found[row, batch.attention_mask[row]]
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-3)
        assert own.abs().max() > 0


def test_occlusion_is_what_the_mask_token_costs_the_span(answerer: Backbone) -> None:
    batch = batch_of(answerer)
    found = static_explainer("occlusion").explain(answerer, batch)
    mask = answerer.tokenizer.mask_token_id
    for row, item in enumerate(batch.items):
        with torch.no_grad():
            whole = answerer.encode(collate([item], answerer.pad_id)).logits
            span = TASK.predict(whole)
            full = TASK.probability(whole, span).item()
            for place in range(len(item.input_ids)):
                expected = 0.0
                if item.explainable[place]:
                    ids = [mask if p == place else i for p, i in enumerate(item.input_ids)]
                    other = collate([item._replace(input_ids=ids)], answerer.pad_id)
                    expected = full - TASK.probability(answerer.encode(other).logits, span).item()
                assert found[row, place].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in STATIC if name not in ("lime", "kernel-shap")])
def test_every_explainer_scores_the_context_alone(answerer: Backbone, name: str) -> None:
    batch = batch_of(answerer, "left")
    found = static_explainer(name).explain(answerer, batch)
    assert found.isfinite().all()
    assert not found[~batch.explainable].any()
