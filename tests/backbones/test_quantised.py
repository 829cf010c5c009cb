"""Quantised weights, half precision and gradient checkpointing: one function in every pass."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import prepare_model_for_kbit_training
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ivra.attention import LEVELS, InterpretableAttention
from ivra.backbones import Backbone, Loading, Lora, hook, load_backbone
from ivra.data import Batch, builtin_rows, collate, encode_rows
from ivra.errors import IvraError
from ivra.shapes import TokenScores

LABELS = ("negative", "positive")
BITS = [8, 4]
NAMES = ["tiny-llama", "tiny-gpt2", "tiny-electra"]


def made(name: str, bits: int | None = None, **options: object) -> Backbone:
    """Adapters with an effect, on weights so large that rounding shows."""
    loading = Loading(bits=bits, lora=Lora(r=4), **options)  # type: ignore[arg-type]
    backbone = load_backbone(name, LABELS, seed=3, loading=loading)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.learnable:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return backbone


def module_of(
    backbone: Backbone, levels: Sequence[str] = ("feature", "head", "layer", "value")
) -> InterpretableAttention:
    module = InterpretableAttention(backbone.sizes, levels)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def batch_of(backbone: Backbone, side: str = "left") -> Batch:
    items = encode_rows(builtin_rows("dev")[:5], backbone.tokenizer, LABELS, 48)
    return collate(items, backbone.pad_id, side)


def keep_of(batch: Batch) -> TokenScores:
    generator = torch.Generator().manual_seed(3)
    keep = torch.rand(batch.explainable.shape, generator=generator)
    return torch.where(keep < 0.2, 0.0, keep)


def quantised_layers(backbone: Backbone) -> list[nn.Module]:
    return [m for m in backbone.model.modules() if isinstance(m, (Linear8bitLt, Linear4bit))]


@contextmanager
def unpinned(backbone: Backbone) -> Iterator[None]:
    """As bitsandbytes has it: layers in evaluation mode with the model."""
    for layer in quantised_layers(backbone):
        layer.training = False
    yield
    backbone.eval()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", BITS)
def test_the_body_is_quantised_and_the_head_is_not(name: str, bits: int) -> None:
    backbone = made(name, bits)
    linear = [m for m in backbone.model.base_model.modules() if isinstance(m, nn.Linear)]
    inside = {id(m) for m in quantised_layers(backbone)}
    lora = {id(m) for n, m in backbone.model.named_modules() if "lora_" in n}
    assert inside
    assert {id(m) for m in linear} == inside | {i for i in map(id, linear) if i in lora}
    head = getattr(backbone.model, backbone.family.head)
    assert all(p.dtype == torch.float32 for p in head.parameters())
    assert backbone.base is not None
    assert backbone.base.bits == bits


@pytest.mark.parametrize("name", NAMES)
def test_8_bit_logits_are_those_of_the_rounded_weights(name: str) -> None:
    """``round(127 w / max) max / 127`` by rows (LLM.int8()), in a plain model."""
    backbone = load_backbone(name, LABELS, seed=3, loading=Loading(bits=8, lora=Lora()))
    plain = load_backbone(name, LABELS, seed=3)
    transposed = name == "tiny-gpt2"
    with torch.no_grad():
        for path, layer in plain.model.base_model.named_modules():
            if type(layer).__name__ not in ("Linear", "Conv1D") or "pooler" in path:
                continue
            weight = layer.weight.T if transposed else layer.weight
            most = weight.abs().amax(-1, keepdim=True)
            rounded = (weight * 127 / most).round() * most / 127
            layer.weight.copy_(rounded.T if transposed else rounded)
        batch = batch_of(backbone)
        found, expected = (of.encode(batch).logits for of in (backbone, plain))
    # bitsandbytes rounds the weights from float16
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("bits", BITS)
@torch.no_grad()
def test_training_and_evaluation_mode_are_one_function(
    bits: int, llama_folder: Callable[..., Path]
) -> None:
    """On a CPU bitsandbytes itself says something else in evaluation mode (of 4 bits where the
    processor knows bfloat16). Llama has no dropout, so the modes must be equal to the bit."""
    backbone = made(str(llama_folder()), bits)
    batch = batch_of(backbone)
    keep = keep_of(batch)

    def passes() -> tuple[Tensor, ...]:
        return backbone.encode(batch).logits, backbone.rerun(batch, keep)

    evaluating = passes()
    backbone.train()
    assert all(map(torch.equal, passes(), evaluating))
    backbone.eval()
    assert not backbone.training
    assert not backbone.model.training
    assert all(map(torch.equal, passes(), evaluating))
    if bits == 8:
        with unpinned(backbone):
            assert (passes()[0] - evaluating[0]).abs().max() > 1e-4, "what pinning is for"
        assert all(map(torch.equal, passes(), evaluating))


def test_dropout_still_follows_the_mode() -> None:
    backbone = made("tiny-gpt2", 8)
    batch = batch_of(backbone)
    with torch.no_grad():
        evaluating = backbone.encode(batch).logits
        backbone.train()
        assert not torch.equal(backbone.encode(batch).logits, evaluating)
        backbone.eval()
        assert torch.equal(backbone.encode(batch).logits, evaluating)


@pytest.mark.parametrize("bits", BITS)
def test_a_removed_token_is_deleted_by_quantised_models_too(bits: int) -> None:
    backbone = made("tiny-llama", bits)
    items = encode_rows(builtin_rows("dev")[:1], backbone.tokenizer, LABELS, 48)
    batch = collate(items, backbone.pad_id, "right")
    gone = torch.tensor([3, 4, 8])
    keep = torch.ones(batch.explainable.shape)
    keep[0, gone] = 0
    ids = torch.tensor([i for n, i in enumerate(items[0].input_ids) if n not in gone.tolist()])
    with torch.no_grad():
        alone = backbone.model(ids[None]).logits
        torch.testing.assert_close(backbone.rerun(batch, keep), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_parameters_can_be_swapped_where_they_are_learnt_and_only_there(bits: int) -> None:
    """A quantised layer computes with numbers of its own: another ``weight`` is not looked at."""
    backbone = made("tiny-llama", bits)
    ids = batch_of(backbone).input_ids[:1]
    own = {id(p) for p in backbone.learnable}
    named = dict(backbone.model.named_parameters())
    learnt = {n: p.detach() + 0.1 for n, p in named.items() if id(p) in own}
    assert len(learnt) == len(own)
    with torch.no_grad():
        before = backbone.model(ids).logits
        assert not torch.allclose(functional_call(backbone.model, learnt, (ids,)).logits, before)
        assert torch.equal(backbone.model(ids).logits, before)
    frozen = [n for n in named if n not in learnt]
    assert any(n.endswith("base_layer.weight") for n in frozen)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is:FutureWarning")
@pytest.mark.parametrize("bits", BITS)
def test_nothing_is_done_to_the_model_that_was_not_asked_for(bits: int) -> None:
    """``prepare_model_for_kbit_training`` makes everything float32 and asks for checkpointing."""
    backbone = made("tiny-llama", bits, dtype="bfloat16")
    norm, embedding = backbone.model.model.norm, backbone.embeddings
    assert norm.weight.dtype == embedding.weight.dtype == torch.bfloat16
    assert {p.dtype for p in backbone.learnable} == {torch.float32}
    assert not any(getattr(m, "gradient_checkpointing", False) for m in backbone.model.modules())
    assert not embedding._forward_hooks
    assert not norm.weight.requires_grad
    other = prepare_model_for_kbit_training(
        copy.deepcopy(backbone).model, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    assert other.model.norm.weight.dtype == torch.float32
    assert any(getattr(m, "gradient_checkpointing", False) for m in other.modules())


def derivatives(backbone: Backbone) -> tuple[list[Tensor], Tensor]:
    """The gradient of everything a criterion may read, and a second derivative."""
    batch, module = batch_of(backbone), module_of(backbone, LEVELS)
    keep = keep_of(batch).requires_grad_()
    parameters = [*backbone.learnable, *module.parameters()]
    encoding = backbone.encode(batch, module, hidden=True)
    saliency = module(encoding.readings, batch.explainable, encoding.classes)
    assert encoding.hidden is not None
    loss = functional.cross_entropy(encoding.logits, batch.labels)
    loss = loss + (saliency * torch.arange(saliency.shape[1])).sum()
    loss = loss + encoding.hidden.square().mean() + backbone.rerun(batch, keep).square().sum()
    wanted = [*parameters, keep]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(loss, wanted)
    assert all(map(torch.equal, first, again)), "a graph can be gone through twice"
    return list(first), slope_by_double_backward(backbone, module, batch)


def directions(parameters: list[nn.Parameter]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [0.1 * torch.randn(p.shape, generator=generator) for p in parameters]


def slope_by_double_backward(
    backbone: Backbone, module: InterpretableAttention, batch: Batch
) -> Tensor:
    """The derivative of the saliency along a direction of adapters, head and module."""
    parameters = [*backbone.learnable, *module.parameters()]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        encoding = backbone.encode(batch, module)
        saliency = module(encoding.readings, batch.explainable, encoding.classes)
        weights = torch.zeros_like(saliency, requires_grad=True)
        pulled = torch.autograd.grad(
            saliency, parameters, weights, create_graph=True, allow_unused=True
        )
        pairs = zip(pulled, directions(parameters), strict=True)
        total = torch.stack([(p * d).sum() for p, d in pairs if p is not None]).sum()
        (slope,) = torch.autograd.grad(total, weights)
    return slope


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", [None, *BITS])
def test_checkpointing_changes_no_derivative(
    name: str, bits: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers are recomputed with their capture: its key bias, and what its reader keeps. Stage 2
    runs without dropout, in evaluation mode, in which transformers alone checkpoints nothing."""
    calls = []

    def counted(*given: object, **named: object) -> object:
        calls.append(1)
        return sdpa_attention_forward(*given, **named)

    monkeypatch.setattr(hook, "sdpa_attention_forward", counted)
    expected, expected_slope = derivatives(made(name, bits))
    layers = len(calls)
    gradient, slope = derivatives(made(name, bits, gradient_checkpointing=True))
    assert len(calls) > 3 * layers, "layers did run again"
    for found, other in zip(gradient, expected, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(slope, expected_slope, rtol=1e-5, atol=1e-7)


def test_checkpointing_keeps_less(llama_folder: Callable[..., Path]) -> None:
    def kept(checkpointing: bool) -> int:
        backbone = made(str(llama_folder()), 8, gradient_checkpointing=checkpointing)
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            backbone.encode(batch_of(backbone)).logits.sum()
        return sum(sizes)

    assert kept(True) < kept(False) / 4


def slope_by_difference(
    backbone: Backbone, module: InterpretableAttention, batch: Batch, length: float
) -> Tensor:
    parameters = [*backbone.learnable, *module.parameters()]
    direction = directions(parameters)
    norm = torch.stack([d.square().sum() for d in direction]).sum().sqrt()
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            start = [p.clone() for p in parameters]
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.add_(d, alpha=float(sign * length / norm))
            encoding = backbone.encode(batch, module)
            ends.append(module(encoding.readings, batch.explainable, encoding.classes))
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
    return (ends[0] - ends[1]) * norm / (2 * length)


def cosine(one: Tensor, other: Tensor) -> float:
    return functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", BITS)
def test_a_central_difference_of_quantised_weights_is_the_derivative(name: str, bits: int) -> None:
    backbone = made(name, bits)
    module, batch = module_of(backbone), batch_of(backbone)
    exact = slope_by_double_backward(backbone, module, batch)
    assert not backbone.rounds
    found = slope_by_difference(backbone, module, batch, 0.01)
    assert cosine(found, exact) > 0.9999
    assert abs(found.norm() / exact.norm() - 1) < 1e-3


@pytest.mark.parametrize(
    "dtype",
    [pytest.param("bfloat16", id="bfloat16"), pytest.param("auto", id="rounded-activations")],
)
@pytest.mark.parametrize("name", NAMES)
def test_where_a_pass_rounds_a_short_difference_drowns_and_a_longer_one_does_not(
    name: str, dtype: str
) -> None:
    """In bfloat16, and with activations of 8 bits, which a GPU has and an unpinned CPU layer."""
    backbone = made(name, 8, dtype=dtype)
    module, batch = module_of(backbone), batch_of(backbone)
    exact = slope_by_double_backward(made(name, 8), module, batch)
    if dtype == "auto":
        with unpinned(backbone):
            short, longer = (
                cosine(slope_by_difference(backbone, module, batch, length), exact)
                for length in (0.01, 0.2)
            )
    else:
        assert backbone.rounds
        short, longer = (
            cosine(slope_by_difference(backbone, module, batch, length), exact)
            for length in (0.01, 0.2)
        )
    assert short < 0.9
    assert longer > 0.96


def test_half_precision_reads_a_saliency_of_single_precision(
    llama_folder: Callable[..., Path],
) -> None:
    half, whole = (made(str(llama_folder()), None, dtype=d) for d in ("bfloat16", "float32"))
    batch = batch_of(half)
    found = []
    for backbone in (half, whole):
        module = module_of(backbone)
        with torch.no_grad():
            encoding = backbone.encode(batch, module)
            found.append(module(encoding.readings, batch.explainable, whole.encode(batch).classes))
        assert encoding.logits.dtype == torch.float32
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0].sum(-1), torch.ones(len(batch)))
    assert cosine(*found) > 0.99
    assert half.model.dtype == torch.bfloat16
    assert torch.isfinite(half.rerun(batch, keep_of(batch))).all()


def test_padding_that_is_a_real_token_is_harmless_in_8_bits(
    llama_folder: Callable[..., Path],
) -> None:
    """pad = eos, on both sides, against each row alone."""
    backbone = made(str(llama_folder(2, False)), 8)
    assert backbone.pad_id == backbone.tokenizer.eos_token_id
    module = module_of(backbone)
    items = encode_rows(builtin_rows("dev")[:4], backbone.tokenizer, LABELS, 48)
    for side in ("left", "right"):
        batch = collate(items, backbone.pad_id, side)
        with torch.no_grad():
            encoding = backbone.encode(batch, module)
            saliency = module(encoding.readings, batch.explainable, encoding.classes)
            for row, item in enumerate(items):
                one = collate([item], backbone.pad_id, side)
                alone = backbone.encode(one, module)
                torch.testing.assert_close(encoding.logits[row], alone.logits[0], rtol=0, atol=1e-5)
                own = module(alone.readings, one.explainable, alone.classes)
                torch.testing.assert_close(
                    saliency[row, batch.attention_mask[row]], own[0], rtol=0, atol=1e-5
                )


def test_a_model_without_gradient_checkpointing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import ElectraForSequenceClassification

    def refuse(self: object, kwargs: object = None) -> None:
        raise ValueError("not compatible")

    monkeypatch.setattr(
        ElectraForSequenceClassification, "activation_checkpointing_enable", refuse, raising=False
    )
    with pytest.raises(IvraError) as caught:
        load_backbone("tiny-electra", LABELS, loading=Loading(gradient_checkpointing=True))
    assert str(caught.value).startswith(
        "tiny-electra (model family 'electra') has no gradient checkpointing in transformers; "
    )
