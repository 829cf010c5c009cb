"""Static explainers against transformers' own attention and plain autograd, row by row."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ivra.attention import InterpretableAttention
from ivra.backbones import TINY, Backbone
from ivra.data import Batch, Item, Row, collate, encode_rows
from ivra.errors import IvraError
from ivra.explainers import (
    STATIC,
    Explainer,
    InputXGradient,
    LastLayerAttention,
    MeanAttention,
    ModuleExplainer,
    RandomScores,
    UntrainedExplainer,
    static_explainer,
)

TEXTS = (
    "not good .",
    "the plot was hardly good , but the music was not bad either .",
    "great !",
    "a very dull film .",
)

Loud = Callable[[str], Backbone]
every_model = pytest.mark.parametrize("name", list(TINY))
both_sides = pytest.mark.parametrize("side", ["right", "left"])
encoder_and_decoders = pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2", "tiny-llama"])


def items_of(backbone: Backbone) -> list[Item]:
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return encode_rows(rows, backbone.tokenizer, None, 64)


def batch_of(backbone: Backbone, side: str = "right") -> Batch:
    return collate(items_of(backbone), backbone.pad_id, side)


def per_row(scores: Tensor, batch: Batch) -> list[Tensor]:
    return [row[mask] for row, mask in zip(scores, batch.attention_mask, strict=True)]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=tolerance)


def inputs_of(backbone: Backbone, item: Item) -> dict[str, Tensor]:
    """One row, unpadded, as transformers wants it."""
    inputs = {
        "input_ids": torch.tensor([item.input_ids]),
        "attention_mask": torch.ones(1, len(item.input_ids), dtype=torch.long),
    }
    if not backbone.family.causal:
        inputs["token_type_ids"] = torch.tensor([item.token_type_ids])
    return inputs


def eager(backbone: Backbone) -> torch.nn.Module:
    model = copy.deepcopy(backbone.model).eval()
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("which", ["attention", "attention-last"])
@both_sides
@encoder_and_decoders
def test_attention_received_is_the_mean_column_of_transformers_own_attention(
    name: str, side: str, which: str, loud: Loud
) -> None:
    backbone = loud(name)
    model, batch = eager(backbone), batch_of(backbone, side)
    found = static_explainer(which).explain(backbone, batch)
    spreads = []
    assert (found[~batch.explainable] == 0).all()
    for scores, item in zip(per_row(found, batch), items_of(backbone), strict=True):
        with torch.no_grad():
            layers = model(**inputs_of(backbone, item), output_attentions=True).attentions
        used = layers[-1:] if which == "attention-last" else layers
        received = torch.zeros(len(item.input_ids))
        for layer in used:
            for head in layer[0]:
                for query in head:
                    received += query / (len(used) * len(layer[0]) * len(head))
        received = received * torch.tensor(item.explainable)
        close(scores, received / received.sum())
        spreads.append(float(received.max() / received[received > 0].min()))
    assert max(spreads) > 1.3, "flat attention proves nothing"


def attentions_of(backbone: Backbone, item: Item) -> list[np.ndarray]:
    """Transformers' own probabilities of one unpadded row, ``(H, L, L)`` a layer, in float64."""
    with torch.no_grad():
        found = eager(backbone)(**inputs_of(backbone, item), output_attentions=True).attentions
    return [layer[0].double().numpy() for layer in found]


def shared_out(row: np.ndarray, item: Item) -> Tensor:
    """``row`` over the explainable tokens, summing to 1."""
    kept = row * np.array(item.explainable)
    return torch.from_numpy(kept / kept.sum()).float()


@both_sides
@encoder_and_decoders
def test_attention_cls_is_the_last_layers_row_of_the_token_the_head_reads(
    name: str, side: str, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, side)
    found = static_explainer("attention-cls").explain(backbone, batch)
    for scores, item in zip(per_row(found, batch), items_of(backbone), strict=True):
        read = -1 if backbone.family.causal else 0
        last = attentions_of(backbone, item)[-1]
        expected = sum(last[head, read] for head in range(len(last))) / len(last)
        close(scores, shared_out(expected, item))


@both_sides
@encoder_and_decoders
def test_attention_rollout_is_the_product_of_mixed_layers(name: str, side: str, loud: Loud) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, side)
    found = static_explainer("attention-rollout").explain(backbone, batch)
    last_layer = static_explainer("attention-cls").explain(backbone, batch)
    assert (found - last_layer).abs().max() > 1e-2
    for scores, item in zip(per_row(found, batch), items_of(backbone), strict=True):
        rolled = np.eye(len(item.input_ids))
        for layer in attentions_of(backbone, item):
            rolled = (0.5 * layer.mean(0) + 0.5 * np.eye(len(rolled))) @ rolled
        np.testing.assert_allclose(rolled.sum(-1), 1, rtol=1e-5)
        close(scores, shared_out(rolled[-1 if backbone.family.causal else 0], item))


@pytest.mark.parametrize("queries", ["all", "pooled"])
@both_sides
@encoder_and_decoders
def test_attention_head_is_one_layer_and_head_counted_as_in_python(
    name: str, side: str, queries: str, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, side)
    items = items_of(backbone)
    for layer, head in ((0, 1), (-1, 0), (1, -1), (-3, -4)):
        text = f"attention-head:layer={layer}:head={head}:queries={queries}"
        found = static_explainer(text).explain(backbone, batch)
        for scores, item in zip(per_row(found, batch), items, strict=True):
            own = attentions_of(backbone, item)[layer][head]
            read = -1 if backbone.family.causal else 0
            close(scores, shared_out(own.mean(0) if queries == "all" else own[read], item))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("layer=3", "attention-head:layer is 3: expected -3 to 2, the model has 3 layers"),
        ("layer=-4", "attention-head:layer is -4: expected -3 to 2, the model has 3 layers"),
        ("head=4", "attention-head:head is 4: expected -4 to 3, the model has 4 heads"),
        ("layer=0:head=-5", "attention-head:head is -5: expected -4 to 3, the model has 4 heads"),
    ],
)
def test_a_layer_or_head_that_the_model_does_not_have(
    options: str, message: str, loud: Loud
) -> None:
    backbone = loud("tiny-bert")
    explainer = static_explainer(f"attention-head:{options}")
    for call in (explainer.check, lambda model: explainer.explain(model, batch_of(model))):
        with pytest.raises(IvraError) as caught:
            call(backbone)
        assert str(caught.value) == message


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_a_decoder_that_ends_in_padding_ids_is_read_where_transformers_reads_it(
    name: str, loud: Loud
) -> None:
    """With pad = eos a row may end in visible tokens of the padding id: the head passes over
    them, so their states may change without a change of the logits."""
    backbone = loud(name)
    item = items_of(backbone)[3]
    tail = [backbone.pad_id, backbone.pad_id]
    ended = item._replace(
        input_ids=[*item.input_ids, *tail],
        token_type_ids=[*item.token_type_ids, 0, 0],
        explainable=[*item.explainable, False, False],
        segment=[*item.segment, -1, -1],
        word=[*item.word, -1, -1],
    )
    batch = collate([ended, item], backbone.pad_id)
    assert backbone.pooled_place(batch).tolist() == [len(item.input_ids) - 1] * 2
    scores = static_explainer("attention-cls").explain(backbone, batch)
    close(scores[0], scores[1])


@every_model
def test_input_x_gradient_is_plain_autograd_on_the_embeddings_of_single_rows(
    name: str, loud: Loud
) -> None:
    backbone = loud(name)
    model, batch = eager(backbone), batch_of(backbone)
    found = InputXGradient().explain(backbone, batch)
    assert (found[~batch.explainable] == 0).all()
    assert (found < 0).any(), "signed"
    for scores, item in zip(per_row(found, batch), items_of(backbone), strict=True):
        inputs = inputs_of(backbone, item)
        captured: list[Tensor] = []

        def keep(_: object, __: object, output: Tensor, into: list = captured) -> Tensor:
            into.append(output.detach().requires_grad_())
            return into[0]

        handle = model.get_input_embeddings().register_forward_hook(keep)
        logits = model(**inputs).logits[0]
        handle.remove()
        (embeddings,) = captured
        (slope,) = torch.autograd.grad(logits.max(), embeddings)
        expected = (slope * embeddings).sum(-1)[0].detach() * torch.tensor(item.explainable)
        assert expected.abs().max() > 1e-2
        close(scores, expected, 1e-4 * float(expected.abs().max()))


def test_input_x_gradient_of_a_frozen_model_is_the_same_and_leaves_no_gradients(loud: Loud) -> None:
    backbone = loud("tiny-electra")
    batch = batch_of(backbone)
    expected = InputXGradient().explain(backbone, batch)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    backbone.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(InputXGradient().explain(backbone, batch), expected)


@pytest.fixture(params=[*STATIC, "ivra"])
def explainer(request: pytest.FixtureRequest, loud: Loud) -> Explainer:
    """Each static explainer, and a module with drawn coefficients."""
    if request.param != "ivra":
        return static_explainer(request.param)
    levels = ("feature", "head", "layer", "value")
    module = InterpretableAttention(loud("tiny-bert").sizes, levels)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return ModuleExplainer(module)


@both_sides
@encoder_and_decoders
def test_a_batch_is_explained_as_its_rows_one_by_one(
    name: str, side: str, explainer: Explainer, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, side)
    together = explainer.explain(backbone, batch)
    assert (together[~batch.explainable] == 0).all()
    for scores, item in zip(per_row(together, batch), items_of(backbone), strict=True):
        alone = explainer.explain(backbone, collate([item], backbone.pad_id, side))[0]
        close(scores, alone, 2e-4 * float(alone.abs().max()))


def test_what_calls_itself_a_saliency_is_one(explainer: Explainer, loud: Loud) -> None:
    backbone = loud("tiny-bert")
    batch = batch_of(backbone)
    scores = explainer.explain(backbone, batch)
    assert not scores.requires_grad
    sums = scores.sum(-1)
    assert explainer.is_saliency == bool((scores >= 0).all() and (sums - 1).abs().max() < 1e-5)


def test_random_scores_depend_on_the_rows_id_and_the_seed_alone(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    right, left = batch_of(backbone), batch_of(backbone, "left")
    one = per_row(RandomScores().explain(backbone, right), right)
    two = per_row(RandomScores().explain(loud("tiny-gpt2"), left), left)
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)
    other = per_row(RandomScores(seed=1).explain(backbone, right), right)
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    item = items_of(backbone)[0]
    renamed = item._replace(row=replace(item.row, id="another"))
    again = item._replace(row=replace(item.row, texts=("other words here",)))
    same, new = (RandomScores().explain(backbone, collate([row], 0))[0] for row in (again, renamed))
    assert torch.equal(same, one[0])
    assert not torch.equal(new, one[0])


def test_random_scores_leave_the_global_random_state_alone(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    before = torch.random.get_rng_state()
    scores = RandomScores().explain(backbone, batch_of(backbone))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(scores[scores > 0].unique()) == int((scores > 0).sum())
    assert scores.max() < 1


def test_the_untrained_explainer_is_a_module_at_its_start(loud: Loud) -> None:
    backbone = loud("tiny-llama")
    batch = batch_of(backbone, "left")
    module = InterpretableAttention(backbone.sizes)
    close(
        UntrainedExplainer().explain(backbone, batch),
        ModuleExplainer(module).explain(backbone, batch),
    )


def test_the_mean_and_the_last_layer_differ(loud: Loud) -> None:
    backbone = loud("tiny-electra")
    batch = batch_of(backbone)
    mean, last = (e.explain(backbone, batch) for e in (MeanAttention(), LastLayerAttention()))
    assert (mean - last).abs().max() > 1e-3


def test_every_static_explainer_is_found_by_its_own_name() -> None:
    assert {name: type(static_explainer(name)).name for name in STATIC} == {n: n for n in STATIC}
    assert set(STATIC) >= {"untrained", "attention", "attention-last", "input-x-gradient", "random"}


def test_an_unknown_explainer_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        static_explainer("atention")
    choices = ", ".join(sorted(STATIC))
    assert str(caught.value) == (
        f"unknown explainer 'atention'. Did you mean 'attention'? Choose from: {choices}."
    )
