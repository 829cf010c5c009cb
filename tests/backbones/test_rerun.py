"""Thinned rows against rows whose tokens were really deleted, and the gradient of thinning."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ivra.backbones import Backbone
from ivra.data import Batch, Item, collate
from ivra.errors import IvraError

Loud = Callable[[str], Backbone]
Logits = Callable[[Backbone, Sequence[Item]], Tensor]

both_sides = pytest.mark.parametrize("side", ["right", "left"])
both_removals = pytest.mark.parametrize("removal", ["attention", "embedding"])
DECODERS = ["tiny-gpt2", "tiny-llama"]
PER_TOKEN = ("input_ids", "token_type_ids", "explainable", "segment", "word", "offsets")


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def batch_of(backbone: Backbone, items: Sequence[Item], side: str = "right") -> Batch:
    return collate(items, backbone.pad_id, side)


def ones(batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(batch.explainable.shape, dtype=dtype)


def drawn_cut(batch: Batch, seed: int, share: float = 0.5) -> Tensor:
    """A 0/1 keep; what it says of tokens that are not explainable is noise."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(batch.explainable.shape, generator=generator) < share).float()


def shortened(batch: Batch, keep: Tensor) -> list[Item]:
    """The items of ``batch`` with the tokens really deleted; nothing left keeps the first."""
    short = []
    for row, item in enumerate(batch.items):
        own = keep[row, batch.attention_mask[row]].tolist()
        pairs = zip(own, item.explainable, strict=True)
        places = [i for i, (kept, explainable) in enumerate(pairs) if kept > 0 or not explainable]
        places = places or [0]
        cut = {name: [getattr(item, name)[i] for i in places] for name in PER_TOKEN}
        short.append(item._replace(**cut))
    return short


def reruns(backbone: Backbone, batch: Batch, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The logits by deletion, as they are had without gradients, and by attention, with them."""
    with torch.no_grad():
        short = backbone.rerun(batch, keep)
    return short, backbone.rerun(batch, keep.clone().requires_grad_()).detach()


@both_removals
@both_sides
def test_keeping_everything_is_the_plain_forward(
    backbone: Backbone, items: list[Item], side: str, removal: str
) -> None:
    batch = batch_of(backbone, items, side)
    with torch.no_grad():
        close(backbone.rerun(batch, ones(batch), removal), backbone.encode(batch).logits)


@both_removals
def test_what_keep_says_of_tokens_that_are_not_explainable_counts_for_nothing(
    backbone: Backbone, items: list[Item], removal: str
) -> None:
    batch = batch_of(backbone, items, "left")
    keep = torch.where(batch.explainable, drawn_cut(batch, 0), 1.0)
    noise = torch.where(batch.explainable, keep, 0.3)
    with torch.no_grad():
        found = [backbone.rerun(batch, k, removal) for k in (keep, noise)]
    assert torch.equal(*found)


@both_sides
@pytest.mark.parametrize("seed", range(3))
def test_a_hard_cut_is_the_row_with_its_tokens_deleted(
    backbone: Backbone, items: list[Item], side: str, seed: int, reference_logits: Logits
) -> None:
    batch = batch_of(backbone, items, side)
    keep = drawn_cut(batch, seed)
    short = shortened(batch, keep)
    assert any(len(a.input_ids) < len(b.input_ids) for a, b in zip(short, items, strict=True))
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, short))


def test_a_hard_cut_without_gradients_runs_no_more_than_is_left(
    loud: Loud, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = loud("tiny-electra")
    batch = batch_of(backbone, items)
    seen: list[int] = []
    own = backbone.model.forward
    monkeypatch.setattr(
        backbone.model,
        "forward",
        lambda input_ids, **rest: (seen.append(input_ids.numel()), own(input_ids, **rest))[1],
    )
    left = sum(len(item.input_ids) for item in shortened(batch, 0 * ones(batch)))
    with torch.no_grad():
        backbone.rerun(batch, 0 * ones(batch))
    assert sum(seen) == left < batch.input_ids.numel()
    seen.clear()
    backbone.rerun(batch, (0 * ones(batch)).requires_grad_())
    assert seen == [batch.input_ids.numel()]


@both_sides
def test_nothing_is_left_of_a_removed_token_that_all_attention_went_to(
    backbone: Backbone, items: list[Item], side: str, reference_logits: Logits
) -> None:
    """Attention logits that spread over tens of nats, as a trained model's may."""
    backbone = copy.deepcopy(backbone).double()
    with torch.no_grad():
        for name, parameter in backbone.model.named_parameters():
            if any(part in name for part in ("query", "key", "q_proj", "k_proj", "c_attn")):
                parameter.mul_(4)
    batch = batch_of(backbone, items, side)
    keep = drawn_cut(batch, 2)
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, shortened(batch, keep)))


@both_sides
def test_a_hard_cut_of_pairs_with_token_types(
    backbone: Backbone, pairs: list[Item], side: str, reference_logits: Logits
) -> None:
    batch = batch_of(backbone, pairs, side)
    keep = drawn_cut(batch, 1)
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, shortened(batch, keep)))


@both_sides
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DECODERS)
def test_a_hard_cut_of_rows_without_special_tokens_reads_the_last_token_kept(
    name: str, seed: int, items: list[Item], side: str, loud: Loud, reference_logits: Logits
) -> None:
    backbone = loud(name)
    bare = [bared(item) for item in items]
    batch = batch_of(backbone, bare, side)
    keep = drawn_cut(batch, seed)
    for row in (1, 3):
        keep[row, batch.attention_mask[row].nonzero()[-1]] = 0
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, shortened(batch, keep)))


def bared(item: Item) -> Item:
    """Without [CLS] and [SEP], as GPT-2's tokenizer would leave it."""
    cut = {name: getattr(item, name)[1:-1] for name in PER_TOKEN}
    return item._replace(**cut)


@both_sides
@pytest.mark.parametrize("name", DECODERS)
def test_a_hard_cut_where_the_padding_token_is_also_a_word(
    name: str, items: list[Item], side: str, loud: Loud, reference_logits: Logits
) -> None:
    backbone = loud(name)
    bare = [bared(item) for item in items]
    word = bare[1].input_ids[2]
    backbone.model.config.pad_token_id = word
    batch = batch_of(backbone, bare, side)
    keep = drawn_cut(batch, 4)
    place = batch.input_ids[1].eq(word) & batch.attention_mask[1]
    keep[1] = torch.where(place, 1.0, keep[1])
    short = shortened(batch, keep)
    assert word in short[1].input_ids
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, short))
    for found in reruns(backbone, batch, ones(batch)):
        close(found, reference_logits(backbone, bare))


@both_sides
@pytest.mark.parametrize("name", DECODERS)
def test_a_row_of_which_nothing_is_left_keeps_its_first_token(
    name: str, items: list[Item], side: str, loud: Loud, reference_logits: Logits
) -> None:
    backbone = loud(name)
    bare = [bared(item) for item in items]
    assert all(all(item.explainable) for item in bare)
    batch = batch_of(backbone, bare, side)
    keep = ones(batch)
    keep[1] = 0
    keep[3] = 0
    short = shortened(batch, keep)
    assert [len(item.input_ids) for item in short] == [3, 1, 2, 1]
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, short))


@both_sides
def test_without_any_explainable_token_an_encoder_reads_its_special_tokens(
    backbone: Backbone, items: list[Item], side: str, reference_logits: Logits
) -> None:
    batch = batch_of(backbone, items, side)
    keep = 0 * ones(batch)
    short = shortened(batch, keep)
    assert {len(item.input_ids) for item in short} == {2}
    for found in reruns(backbone, batch, keep):
        close(found, reference_logits(backbone, short))


@both_sides
def test_a_soft_keep_multiplies_the_weight_that_every_query_gives_to_a_key(
    backbone: Backbone, items: list[Item], side: str
) -> None:
    """Checked by plain attention with the weights multiplied and divided by their sum."""
    batch = batch_of(backbone, items, side)
    keep = 0.1 + 0.9 * torch.rand(
        batch.explainable.shape, generator=torch.Generator().manual_seed(7)
    )
    moved, back = backbone.head_first(batch)
    order = torch.arange(keep.shape[1]).expand_as(keep) if back is None else back.argsort(1)
    shares = torch.where(moved.explainable, keep.gather(1, order), 1.0)

    def attention(module, query, key, value, mask, scaling=None, **_):
        repeat = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(repeat, 1) for states in (key, value))
        logits = query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)
        weights = logits.masked_fill(~allowed, -1e30).softmax(-1) * shares[:, None, None]
        return (weights / weights.sum(-1, keepdim=True) @ value).transpose(1, 2), None

    allowed = moved.attention_mask[:, None, None].expand(-1, 1, keep.shape[1], -1)
    if backbone.family.causal:
        allowed = allowed & torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).tril()
    with torch.no_grad():
        found = backbone.rerun(batch, keep)
        plain = backbone.encode(batch).logits
        AttentionInterface.register("weighed", attention)
        AttentionMaskInterface.register("weighed", sdpa_mask)
        backbone.model.set_attn_implementation("weighed")
        expected = backbone.encode(batch).logits
    close(found, expected, 3e-5)
    assert (found - plain).abs().amax(-1).min() > 1e-2


def test_removal_by_embedding_is_a_mix_with_the_mask_token(
    backbone: Backbone, items: list[Item]
) -> None:
    batch = batch_of(backbone, items)
    keep = torch.rand(batch.explainable.shape, generator=torch.Generator().manual_seed(2))
    table = copy.deepcopy(backbone.embeddings)
    mask = table(torch.tensor(backbone.tokenizer.mask_token_id))
    share = torch.where(batch.explainable, keep, 1.0)[..., None]
    mixed = share * table(batch.input_ids) + (1 - share) * mask
    handle = backbone.embeddings.register_forward_hook(lambda *_: mixed)
    with torch.no_grad():
        expected = backbone.encode(batch).logits
        handle.remove()
        found = backbone.rerun(batch, keep, "embedding")
        plain = backbone.encode(batch).logits
    close(found, expected)
    assert (found - plain).abs().max() > 1e-2


def test_removal_by_embedding_takes_padding_where_there_is_no_mask_token(
    loud: Loud, items: list[Item]
) -> None:
    backbone = loud("tiny-gpt2")
    batch = batch_of(backbone, items[1:2])
    place = int(batch.explainable[0].nonzero()[2])
    keep = ones(batch)
    keep[0, place] = 0
    with torch.no_grad():
        by_mask = backbone.rerun(batch, keep, "embedding")
        backbone.tokenizer.mask_token = None
        found = backbone.rerun(batch, keep, "embedding")
        ids = list(items[1].input_ids)
        ids[place] = backbone.pad_id
        other = batch_of(backbone, [items[1]._replace(input_ids=ids)])
        close(found, backbone.encode(other).logits)
    assert (found - by_mask).abs().max() > 1e-3


def test_a_rerun_leaves_the_model_as_it_was(backbone: Backbone, items: list[Item]) -> None:
    batch = batch_of(backbone, items)
    with torch.no_grad():
        before = backbone.encode(batch).logits
        for removal in ("attention", "embedding"):
            backbone.rerun(batch, drawn_cut(batch, 3), removal)
        assert torch.equal(backbone.encode(batch).logits, before)
    assert not backbone.embeddings._forward_hooks


@pytest.fixture
def all_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama's own normalisation computes in float32, too coarse for difference quotients."""

    def forward(self: nn.Module, states: Tensor) -> Tensor:
        variance = states.square().mean(-1, keepdim=True)
        return self.weight * states * torch.rsqrt(variance + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def weights(batch: Batch, backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randn(len(batch), backbone.sizes.classes, generator=generator).double()


def gradient_of(backbone: Backbone, batch: Batch, keep: Tensor, removal: str) -> Tensor:
    """Gradient in ``keep`` of a fixed weighted sum of the logits."""
    keep = keep.clone().requires_grad_()
    (backbone.rerun(batch, keep, removal) * weights(batch, backbone)).sum().backward()
    assert keep.grad is not None
    return keep.grad


def central_difference(
    backbone: Backbone, batch: Batch, keep: Tensor, removal: str, step: float
) -> Tensor:
    """The same by moving every entry by ``+-step``, one at a time (rows do not interact)."""
    factors = weights(batch, backbone)
    found = torch.zeros_like(keep)
    for place in range(keep.shape[1]):
        values = []
        for sign in (1, -1):
            moved = keep.clone()
            moved[:, place] += sign * step
            with torch.no_grad():
                values.append((backbone.rerun(batch, moved, removal) * factors).sum(-1))
        found[:, place] = (values[0] - values[1]) / (2 * step)
    return found


def agree(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert expected.abs().max() > 1e-3, "a gradient of nothing proves nothing"
    close(found, expected, tolerance * expected.abs().max().item())


@pytest.mark.usefixtures("all_in_float64")
@both_removals
@both_sides
def test_the_gradient_at_a_soft_keep_is_the_difference_quotient(
    backbone: Backbone, items: list[Item], side: str, removal: str
) -> None:
    backbone = backbone.double()
    batch = batch_of(backbone, items[:3], side)
    keep = (
        0.2
        + 0.7
        * torch.rand(batch.explainable.shape, generator=torch.Generator().manual_seed(6)).double()
    )
    gradient = gradient_of(backbone, batch, keep, removal)
    agree(gradient, central_difference(backbone, batch, keep, removal, 1e-5), 1e-6)
    assert (gradient[~batch.explainable] == 0).all()
    assert (gradient[batch.explainable] != 0).all()


@pytest.mark.usefixtures("all_in_float64")
@both_sides
def test_the_gradient_at_a_hard_cut_is_the_difference_quotient(
    backbone: Backbone, items: list[Item], side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``keep + 1e-6`` as a key's weight, steps well below that leave a removed token removed
    on either side of 0 (``keep > 0`` would renumber the row); the real trace is 1e-30."""
    backbone = backbone.double()
    batch = batch_of(backbone, items[:3], side)
    keep = drawn_cut(batch, 9).double()
    gradient = gradient_of(backbone, batch, keep, "attention")
    monkeypatch.setattr("ivra.backbones.backbone._LEAST_KEEP", 1e-6)
    kept = central_difference(backbone, batch, keep, "attention", 1e-7)
    step = 1e-8
    removed = torch.zeros_like(keep)
    factors = weights(batch, backbone)
    thinned = backbone.rerun(batch, keep.clone().requires_grad_()).detach()
    start = (thinned * factors).sum(-1)
    with torch.no_grad():
        for place in range(keep.shape[1]):
            once, twice = keep.clone(), keep.clone()
            once[:, place] -= step
            twice[:, place] -= 2 * step
            one = (backbone.rerun(batch, once) * factors).sum(-1)
            two = (backbone.rerun(batch, twice) * factors).sum(-1)
            removed[:, place] = (3 * start - 4 * one + two) / (2 * step)
    hard_zero = (keep == 0) & batch.explainable
    assert hard_zero.any()
    assert (~hard_zero & batch.explainable).any()
    agree(gradient, torch.where(hard_zero, removed, kept), 1e-4)


@both_sides
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_explainable_token_has_a_gradient_whether_it_is_kept_or_removed(
    backbone: Backbone, items: list[Item], side: str, share: float
) -> None:
    """The rows end in [SEP], which is always kept, so a decoder can see every token too."""
    batch = batch_of(backbone, items, side)
    keep = drawn_cut(batch, 10, share).requires_grad_()
    backbone.rerun(batch, keep).square().sum().backward()
    assert keep.grad is not None
    assert torch.isfinite(keep.grad).all()
    assert (keep.grad[batch.explainable] != 0).all()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_sees_no_token_behind_the_last_one_kept(
    name: str, items: list[Item], loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, [bared(items[1])])
    keep = ones(batch)
    keep[0, -2:] = 0
    keep.requires_grad_()
    backbone.rerun(batch, keep).square().sum().backward()
    assert keep.grad is not None
    assert (keep.grad[0, :-2] != 0).all()
    assert (keep.grad[0, -2:] == 0).all()


def test_the_gradient_reaches_the_models_own_weights(backbone: Backbone, items: list[Item]) -> None:
    batch = batch_of(backbone, items)
    backbone.rerun(batch, drawn_cut(batch, 1)).square().sum().backward()
    gradient = backbone.embeddings.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_an_unknown_removal_lists_the_choices(loud: Loud, items: list[Item]) -> None:
    backbone = loud("tiny-bert")
    batch = batch_of(backbone, items)
    with pytest.raises(IvraError) as caught:
        backbone.rerun(batch, ones(batch), "embeddings")
    assert str(caught.value) == (
        "unknown removal 'embeddings'. Did you mean 'embedding'? Choose from: attention, embedding."
    )
