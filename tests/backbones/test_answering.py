"""Models that answer questions against Hugging Face's own, whole and with tokens removed."""

import copy
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForQuestionAnswering

from ivra.attention import InterpretableAttention
from ivra.backbones import TINY, Backbone, load_backbone
from ivra.data import Answer, Item, Row, collate, encode_questions
from ivra.errors import IvraError
from ivra.tasks import CLASSIFICATION, QuestionAnswering

TASK = QuestionAnswering()
CONTEXTS = (
    "the plot was dull . the music was good .",
    "bad .",
    "we had the soup , and it was bad ; the service was hardly good , and the plot was dull too .",
)
both_sides = pytest.mark.parametrize("side", ["right", "left"])
every = pytest.mark.parametrize("name", list(TINY))


@lru_cache
def _loud(name: str) -> Backbone:
    backbone = load_backbone(name, tasks=(TASK,), seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4 if backbone.family.causal else 7)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


def loud(name: str) -> Backbone:
    return copy.deepcopy(_loud(name))


def items_of(backbone: Backbone) -> list[Item]:
    rows = [
        Row(f"row-{i}", ("the plot ?", c), answers=(Answer(c[:3], 0),))
        for i, c in enumerate(CONTEXTS)
    ]
    return encode_questions(rows, backbone.tokenizer, 64, 8)


def own_logits(backbone: Backbone, ids: Sequence[int], types: Sequence[int]) -> Tensor:
    """Hugging Face's own start and end logits of one row, ``(L, 2)``, by eager attention."""
    model = copy.deepcopy(backbone.model).eval()
    model.set_attn_implementation("eager")
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids)).long()}
    if model.config.model_type not in ("gpt2", "llama"):
        inputs["token_type_ids"] = torch.tensor([types])
    with torch.no_grad():
        output = model(**inputs)
    return torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)


def of_row(logits: Tensor, visible: Tensor, row: int) -> Tensor:
    return logits[row, visible[row]]


def context_of(item: Item) -> Tensor:
    return torch.tensor([segment == 1 for segment in item.segment])


@every
@both_sides
def test_logits_are_hugging_faces_own_on_the_context(name: str, side: str) -> None:
    backbone = loud(name)
    items = items_of(backbone)
    batch = collate(items, backbone.pad_id, side)
    with torch.no_grad():
        logits = backbone.encode(batch).logits
    for row, item in enumerate(items):
        found, open_ = of_row(logits, batch.attention_mask, row), context_of(item)
        expected = own_logits(backbone, item.input_ids, item.token_type_ids)
        torch.testing.assert_close(found[open_], expected[open_], rtol=0, atol=1e-5)
        assert (found[~open_] == -torch.inf).all()
        assert expected[open_].std() > 0.05
    assert (logits[~batch.attention_mask] == -torch.inf).all()


@every
@both_sides
def test_predictions_and_saliency_do_not_depend_on_padding(name: str, side: str) -> None:
    backbone = loud(name)
    items = items_of(backbone)
    module = InterpretableAttention(backbone.sizes, ("feature", "head", "layer", "value"))
    assert backbone.sizes.classes == 1
    with torch.no_grad():
        module.value.add_(0.3)
        batch = collate(items, backbone.pad_id, side)
        together = backbone.encode(batch, module)
        saliency = module(together.readings, batch.explainable, together.classes)
        for row, item in enumerate(items):
            one = collate([item], backbone.pad_id)
            alone = backbone.encode(one, module)
            own = module(alone.readings, one.explainable, alone.classes)
            visible = batch.attention_mask[row]
            torch.testing.assert_close(saliency[row, visible], own[0], rtol=0, atol=1e-5)
            placed = TASK.placed(alone.predictions, collate([item], backbone.pad_id))
            before = int(visible.int().argmax())
            assert (together.predictions[row] - before).tolist() == placed[0].tolist()


@every
@both_sides
def test_removal_in_attention_is_deletion_at_the_places_that_stay(name: str, side: str) -> None:
    backbone = loud(name)
    items = items_of(backbone)
    batch = collate(items, backbone.pad_id, side)
    keep = (
        torch.rand(batch.explainable.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    ).float()
    with torch.no_grad():
        logits = backbone.rerun(batch, keep, "attention")
    for row, item in enumerate(items):
        own = keep[row, batch.attention_mask[row]].bool() | ~torch.tensor(item.explainable)
        ids = torch.tensor(item.input_ids)[own].tolist()
        types = torch.tensor(item.token_type_ids)[own].tolist()
        expected, found = (
            own_logits(backbone, ids, types),
            of_row(logits, batch.attention_mask, row),
        )
        assert (found[~own] == -torch.inf).all()
        open_ = context_of(item)[own]
        torch.testing.assert_close(found[own][open_], expected[open_], rtol=0, atol=2e-5)


@every
@both_sides
def test_removal_by_embedding_is_the_mask_token(name: str, side: str) -> None:
    backbone = loud(name)
    items = items_of(backbone)
    batch = collate(items, backbone.pad_id, side)
    keep = (
        torch.rand(batch.explainable.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    ).float()
    with torch.no_grad():
        logits = backbone.rerun(batch, keep, "embedding")
    for row, item in enumerate(items):
        stays = keep[row, batch.attention_mask[row]].bool() | ~torch.tensor(item.explainable)
        mask = backbone.tokenizer.mask_token_id
        ids = torch.where(stays, torch.tensor(item.input_ids), mask).tolist()
        expected, open_ = own_logits(backbone, ids, item.token_type_ids), context_of(item)
        found = of_row(logits, batch.attention_mask, row)
        torch.testing.assert_close(found[open_], expected[open_], rtol=0, atol=2e-5)


@pytest.mark.parametrize("removal", ["attention", "embedding"])
def test_a_rerun_is_differentiable_and_finite_also_where_tokens_are_gone(removal: str) -> None:
    backbone = loud("tiny-electra").double()
    batch = collate(items_of(backbone), backbone.pad_id)
    generator = torch.Generator().manual_seed(3)
    keep = torch.rand(batch.explainable.shape, generator=generator, dtype=torch.float64)
    spans = backbone.encode(batch).predictions

    def value(keep: Tensor) -> Tensor:
        return TASK.log_prob(backbone.rerun(batch, keep, removal), spans).sum()

    at = keep.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(at), at)
    direction = torch.randn(keep.shape, generator=generator, dtype=torch.float64)
    step = 1e-6
    with torch.no_grad():
        central = (value(keep + step * direction) - value(keep - step * direction)) / (2 * step)
    assert (slope * direction).sum().item() == pytest.approx(central.item(), rel=1e-4)
    gone = (keep < 0.5).double().requires_grad_()
    (slope,) = torch.autograd.grad(value(gone), gone)
    assert slope.isfinite().all()
    assert slope.abs().max() < 1e4


def test_a_saved_model_comes_back_for_its_own_task(tmp_path: Path) -> None:
    backbone = loud("tiny-electra")
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    chosen = QuestionAnswering(max_answer_length=2)
    loaded = load_backbone(str(tmp_path), tasks=(CLASSIFICATION, chosen))
    assert loaded.task is chosen
    assert not loaded.head_is_new
    assert (loaded.labels, loaded.family.pooled, loaded.family.head) == ((), "none", "qa_outputs")
    assert hasattr(loaded.model, loaded.family.head)
    batch = collate(items_of(loaded), loaded.pad_id)
    with torch.no_grad():
        assert torch.equal(loaded.encode(batch).logits, backbone.encode(batch).logits)
        expected = AutoModelForQuestionAnswering.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.model.state_dict().items())


def test_a_classifier_gets_a_new_head_for_answers_and_back(tmp_path: Path) -> None:
    classifier = load_backbone("tiny-electra", ("no", "maybe", "yes"), seed=1)
    classifier.model.save_pretrained(tmp_path)
    classifier.tokenizer.save_pretrained(tmp_path)
    found = load_backbone(str(tmp_path), tasks=(TASK,))
    assert found.head_is_new
    assert found.model.qa_outputs.out_features == 2
    found.model.save_pretrained(tmp_path)
    again = load_backbone(str(tmp_path), ("no", "yes"), tasks=(CLASSIFICATION,))
    assert again.head_is_new
    assert (again.labels, again.family.pooled) == (("no", "yes"), "first")


def test_a_family_without_such_a_head_is_named(tmp_path: Path) -> None:
    backbone = load_backbone("tiny-electra", tasks=(TASK,))
    backbone.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(IvraError, match="has no model for question answering in transformers"):
        load_backbone(str(tmp_path), tasks=(TASK,))


@every
@both_sides
def test_the_readout_is_what_the_ends_of_the_predicted_answer_attend_to(
    name: str, side: str
) -> None:
    backbone = loud(name)
    items = items_of(backbone)
    batch = collate(items, backbone.pad_id, side)
    module = InterpretableAttention(backbone.sizes, levels=("readout",))
    assert module.readout.shape[1] == 2
    model = copy.deepcopy(backbone.model).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        encoding = backbone.encode(batch, module)
        for row, item in enumerate(items):
            inputs = {"input_ids": torch.tensor([item.input_ids])}
            if model.config.model_type not in ("gpt2", "llama"):
                inputs["token_type_ids"] = torch.tensor([item.token_type_ids])
            own = model(**inputs, output_attentions=True).attentions
            visible = batch.attention_mask[row]
            places = encoding.predictions[row] - int(visible.int().argmax())
            for layer, reading in enumerate(encoding.readings):
                expected = own[layer][0][:, places].transpose(0, 1)
                torch.testing.assert_close(
                    reading.readout[row][..., visible], expected, rtol=0, atol=1e-5
                )
