"""One attention function and one mask function for every model on transformers' interface.

Both are registered under the name ``ivra``: with the attention function alone, transformers
would build no mask and padding and causality would silently be lost. The function passes on to
PyTorch's fused kernel; only inside :func:`capturing` does it also read the layer, and what it
keeps is already reduced, never of size ``L x L``.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ivra.attention import LayerInputs, LayerReader, LayerReading
from ivra.shapes import TokenMask, TokenScores

NAME = "ivra"


@dataclass
class Capture:
    """One forward pass under observation: what to read, how to weigh keys, what was read.

    ``key_bias (B, L)`` is added to every attention logit of a key. Layers are numbered in the
    order in which they run.
    """

    visible: TokenMask
    reader: LayerReader | None = None
    key_bias: TokenScores | None = None
    readings: list[LayerReading] = field(default_factory=list)
    layers: int = 0
    causal: bool = False


_ACTIVE: ContextVar[Capture | None] = ContextVar("ivra_capture", default=None)


@contextmanager
def capturing(capture: Capture) -> Iterator[Capture]:
    """Let ``capture`` see every self-attention layer that runs inside the block."""
    token = _ACTIVE.set(capture)
    try:
        yield capture
    finally:
        _ACTIVE.reset(token)


def latest_reading() -> LayerReading | None:
    """What was read of the layer that ran last; ``None`` where nothing reads.

    Its tensors are made views of none, so that a hook on them sees every derivative.
    """
    capture = _ACTIVE.get()
    if capture is None or not capture.readings:
        return None
    heads, values, attending, _ = capture.readings[-1]
    if attending is not None:
        attending = attending._replace(query=attending.query.clone(), key=attending.key.clone())
    values = None if values is None else values.clone()
    capture.readings[-1] = LayerReading(heads.clone(), values, attending)
    return capture.readings[-1]


class _Recomputing:
    """Lets a layer be observed again as it was the first time; can be entered again and again."""

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture
        self._tokens: list[Token[Capture | None]] = []

    def __enter__(self) -> None:
        capture = self._capture
        again = None if capture is None else replace(capture, readings=[])
        self._tokens.append(_ACTIVE.set(again))

    def __exit__(self, *error: object) -> None:
        _ACTIVE.reset(self._tokens.pop())


def recomputed() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What gradient checkpointing runs a layer in, the first time and when it is computed again.

    The backward pass computes the layer outside :func:`capturing`, on a thread of its own on a
    GPU. Without its capture the keys would have no bias there, and what the reader keeps for its
    own derivative would be missing.
    """
    capture = _ACTIVE.get()
    return nullcontext(), _Recomputing(None if capture is None else replace(capture, readings=[]))


def additive_mask(
    mask: Tensor | None, causal: bool, bias: TokenScores, length: int, dtype: torch.dtype
) -> Tensor:
    """``mask`` (boolean, additive or none) with ``bias (B, L)`` added to every key's logits."""
    if mask is None and causal:
        mask = torch.ones(length, length, dtype=torch.bool, device=bias.device).tril()[None, None]
    keys = bias.to(dtype)[:, None, None, :]
    if mask is None:
        return keys.expand(-1, 1, length, -1)
    if mask.dtype == torch.bool:
        return torch.where(mask, keys, torch.finfo(dtype).min)
    return mask + keys


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,  # the interface's own: position ids, cache, flags of single models
) -> tuple[Tensor, None]:
    """Scaled dot-product attention that an active :class:`Capture` can read along."""
    capture = _ACTIVE.get()
    if capture is not None and query.shape[2] == key.shape[2]:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        causal = bool(kwargs.get("is_causal", getattr(module, "is_causal", False)))
        capture.causal |= causal
        if capture.reader is not None:
            inputs = LayerInputs(query, key, value, scale, capture.visible, attention_mask, causal)
            capture.readings.append(capture.reader.read_layer(capture.layers, inputs))
        capture.layers += 1
        if capture.key_bias is not None:
            attention_mask = additive_mask(
                attention_mask, causal, capture.key_bias, key.shape[2], query.dtype
            )
    return sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        **kwargs,  # type: ignore[arg-type]
    )


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


@contextmanager
def given_output(layer: nn.Module, output: Tensor) -> Iterator[None]:
    """Let ``layer`` return ``output``, whatever it is called with."""

    def give(layer: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
        return output

    handle = layer.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()
