"""Linear layers of 8 and 4 bits by bitsandbytes, and the mode they run in."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from ivra.backbones.loading import Loading

HALF = (torch.float16, torch.bfloat16)


def quantisation(loading: Loading, kept: list[str]) -> BitsAndBytesConfig | None:
    """What transformers quantises by; ``kept`` names the modules that keep their numbers."""
    if loading.bits is None:
        return None
    compute = torch.float32 if loading.dtype == "auto" else getattr(torch, loading.dtype)
    return BitsAndBytesConfig(
        load_in_8bit=loading.bits == 8,
        load_in_4bit=loading.bits == 4,
        llm_int8_skip_modules=[f".*{name}" for name in kept],  # patterns, from the start on
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute,
    )


def load_arguments(loading: Loading, kept: list[str], device: torch.device | str) -> dict[str, Any]:
    """What ``from_pretrained`` is told: the numbers, and the device where they are quantised."""
    told: dict[str, Any] = {}
    if loading.dtype != "auto":
        told["dtype"] = getattr(torch, loading.dtype)
    config = quantisation(loading, kept)
    if config is not None:
        told |= {"quantization_config": config, "device_map": {"": torch.device(device)}}
    return told


def as_loaded(
    model: PreTrainedModel, loading: Loading, kept: list[str], device: torch.device | str
) -> PreTrainedModel:
    """A model that was built, not read, with the numbers that it would have been read with."""
    told = load_arguments(loading, kept, device)
    if "quantization_config" not in told:
        return model if loading.dtype == "auto" else model.to(told["dtype"])
    return type(model).from_pretrained(
        None, config=model.config, state_dict=model.state_dict(), **told
    )


def is_quantised(model: nn.Module) -> bool:
    """Whether some of its linear layers are."""
    return bool(getattr(model, "is_quantized", False))


def bits_of(model: nn.Module) -> int:
    """How many bits a weight of its quantised layers has; 0 where none is."""
    if not is_quantised(model):
        return 0
    return 8 if getattr(model, "is_loaded_in_8bit", False) else 4


def dequantised(model: PreTrainedModel) -> PreTrainedModel:
    """The model with the same weights as ordinary numbers, in the layers of its own family.

    transformers makes linear layers of all; those of GPT-2 hold their weights transposed.
    """
    with torch.device("meta"):
        family = type(model)(model.config)
    model = model.dequantize()
    for name, kind in family.named_modules():
        linear = model.get_submodule(name)
        if isinstance(kind, Conv1D) and isinstance(linear, nn.Linear):
            turned = Conv1D(linear.out_features, linear.in_features)
            turned.weight = nn.Parameter(linear.weight.detach().T.contiguous())
            turned.bias = linear.bias
            model.set_submodule(name, turned)
    return model


def pin(model: nn.Module) -> None:
    """Put layers whose mode says something else than "with dropout" into the one they keep.

    On a CPU a bitsandbytes layer is another function in evaluation mode: one of 8 bits rounds its
    activations, one of 4 bits computes in bfloat16 and packs its weights anew. Training and
    evaluation, or the two passes of a difference, would not be passes of one model. It stays in
    training mode, where the activations are whole and the derivative is exact; on a GPU both modes
    compute the same. A layer under gradient checkpointing is recomputed in training mode alone;
    its dropout belongs to the modules inside it, whose mode is the model's.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing:
            module.training = True
    for layer in _quantised_layers(model):
        layer.training = True


def quantised_parts(model: nn.Module) -> Iterator[object]:
    """What quantised layers hold besides parameters and buffers: the numbers themselves."""
    for layer in _quantised_layers(model):
        state = getattr(layer, "state", None)
        parts = (getattr(state, "CB", None), getattr(state, "SCB", None))
        yield from (
            part for part in (*parts, getattr(layer, "quant_state", None)) if part is not None
        )


def _quantised_layers(model: nn.Module) -> list[nn.Module]:
    if not is_quantised(model):
        return []
    from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt  # slow to load

    return [m for m in model.modules() if isinstance(m, (Linear4bit, Linear8bitLt))]
