"""How a model is brought into memory: its numbers, its adapters, what a pass keeps."""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters as peft builds them (Hu et al. 2022, *LoRA*): ``W x + (alpha / r) B A x``.

    ``A (r, in)`` is drawn, ``B (out, r)`` starts at 0, so that a new adapter changes no logit.
    ``dropout`` is that of ``x`` before ``A`` in stage 1. ``target_modules`` are names, or ends of
    names, of linear layers; none takes those declared of the model's family.
    """

    r: int = 8
    alpha: int = 8
    dropout: float = 0.0
    target_modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loading:
    """What :func:`~ivra.backbones.load_backbone` does to the weights that it finds.

    ``revision``: the branch, tag or commit of a hub id. ``dtype``: of the weights that are not
    quantised, ``"auto"`` as they are stored; what is trained of a model with adapters is float32
    all the same. ``bits``: 8 (LLM.int8(), Dettmers et al. 2022) or 4 (NF4, Dettmers et al. 2023) a
    weight of the linear layers, by bitsandbytes; the head keeps its numbers. ``lora``: new
    adapters, where what is loaded has none. ``gradient_checkpointing``: layers are computed again
    in the backward pass instead of being kept. ``merge``: adapters that were saved become part of
    the weights, which are no longer quantised then; logits stay what they were.
    """

    revision: str | None = None
    dtype: Dtype = "auto"
    bits: Literal[4, 8] | None = None
    lora: Lora | None = None
    gradient_checkpointing: bool = False
    merge: bool = False


AS_IT_IS = Loading()
