"""Embeddings given from outside, the layers in order, and the token that the head reads."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from ivra.backbones import Backbone
from ivra.data import Item, collate
from ivra.errors import IvraError

Logits = Callable[[Backbone, Sequence[Item]], Tensor]
both_sides = pytest.mark.parametrize("side", ["right", "left"])


@both_sides
def test_given_embeddings_enter_in_the_place_of_the_tokens_own(
    backbone: Backbone, items: list[Item], side: str, reference_logits: Logits
) -> None:
    """The logits are those of rows whose words stand in the reverse order."""
    mixed = [item._replace(input_ids=item.input_ids[::-1]) for item in items]
    batch, other = (collate(rows, backbone.pad_id, side) for rows in (items, mixed))
    embeddings = backbone.embed(other.input_ids)
    found = backbone.encode(batch, embeddings=embeddings).logits
    torch.testing.assert_close(found, reference_logits(backbone, mixed), rtol=0, atol=1e-5)
    own = backbone.encode(batch, embeddings=backbone.embed(batch.input_ids)).logits
    torch.testing.assert_close(own, backbone.encode(batch).logits, rtol=0, atol=1e-6)
    assert (found - own).abs().max() > 1e-3
    assert not backbone.embeddings._forward_hooks


@both_sides
def test_a_row_of_padding_ids_alone_takes_given_embeddings_too(
    loud: Callable[[str], Backbone], items: list[Item], side: str
) -> None:
    backbone = loud("tiny-gpt2")
    blank = items[0]._replace(input_ids=[backbone.pad_id] * len(items[0].input_ids))
    batch = collate([blank, items[1]], backbone.pad_id, side)
    embeddings = backbone.embed(batch.input_ids).detach().requires_grad_()
    logits = backbone.encode(batch, embeddings=embeddings).logits
    (slope,) = torch.autograd.grad(logits[0].max(), embeddings)
    read = slope[0].abs().sum(-1) > 0
    assert read.nonzero()[:, 0].tolist() == backbone.pooled_place(batch)[:1].tolist()


@both_sides
def test_the_head_reads_the_pooled_place_of_the_last_block_alone(
    backbone: Backbone, items: list[Item], side: str
) -> None:
    batch = collate(items, backbone.pad_id, side)
    moved, _ = backbone.head_first(batch)
    kept: list[Tensor] = []
    handle = backbone.blocks[-1].register_forward_hook(lambda _, __, out: kept.append(out))
    logits = backbone.encode(moved).logits
    handle.remove()
    (slope,) = torch.autograd.grad(logits.square().sum(), kept[0])
    read = (slope.abs().sum(-1) > 0).nonzero()
    assert read.tolist() == list(map(list, enumerate(backbone.pooled_place(moved).tolist())))
    rows = zip(batch.input_ids, backbone.pooled_place(batch).tolist(), items, strict=True)
    for ids, place, item in rows:
        assert int(ids[place]) == item.input_ids[-1 if backbone.family.causal else 0]


def test_the_blocks_run_in_their_order(backbone: Backbone, items: list[Item]) -> None:
    ran: list[int] = []
    for number, block in enumerate(backbone.blocks):
        block.register_forward_hook(lambda _, __, out, number=number: ran.append(number))
    backbone.encode(collate(items, backbone.pad_id))
    assert ran == list(range(backbone.sizes.layers))


def test_a_model_without_a_list_of_layers(loud: Callable[[str], Backbone]) -> None:
    backbone = loud("tiny-bert")
    backbone.model.bert.encoder.layer = nn.Sequential(*backbone.model.bert.encoder.layer)
    with pytest.raises(IvraError) as caught:
        _ = backbone.blocks
    assert str(caught.value) == (
        "tiny-bert keeps its 3 layers in no list: expected a model whose layers can be told "
        "apart; choose an explainer without a layer of its own"
    )


def test_the_longest_row_is_the_longest_that_the_model_itself_can_read(backbone: Backbone) -> None:
    most, word = backbone.most_tokens, backbone.mask_id

    def read(length: int) -> Tensor:
        ids = torch.full((1, length), word + 1)
        found: Tensor = backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return found

    if backbone.model.config.model_type == "llama":  # rotary positions have no end
        assert most is None
        return
    assert most is not None
    assert read(most).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        read(most + 1)
