"""What is declared of a model family, and how the facts of any other model are found."""

from dataclasses import dataclass
from typing import Literal

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Family:
    """Declared facts of a backbone.

    ``causal``: a token sees only earlier ones. ``pooled``: which token the classification head
    reads (``"none"``: a head that reads every token). ``head``: the attribute that holds the head.
    ``lora_targets``: the projections that LoRA adapts by default. ``first_position``: the position
    id of a row's first token (RoBERTa-like models start after the padding id, given as
    ``"after-padding"``).
    """

    model_type: str
    causal: bool
    pooled: Literal["first", "last", "none"]
    head: str
    lora_targets: tuple[str, ...]
    first_position: Literal["zero", "after-padding"] = "zero"

    def position_start(self, config: PreTrainedConfig) -> int:
        """The position id of the first visible token."""
        return 0 if self.first_position == "zero" else int(config.pad_token_id) + 1


_BERT_LIKE = ("query", "key", "value")

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family("electra", False, "first", "classifier", _BERT_LIKE),
        Family("bert", False, "first", "classifier", _BERT_LIKE),
        Family("roberta", False, "first", "classifier", _BERT_LIKE, "after-padding"),
        Family("xlm-roberta", False, "first", "classifier", _BERT_LIKE, "after-padding"),
        Family("gpt2", True, "last", "score", ("c_attn",)),
        Family("llama", True, "last", "score", ("q_proj", "v_proj")),
    )
}


def head_names(model: PreTrainedModel) -> list[str]:
    """The model's parts outside its body that have weights: its head."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def family_of(model: PreTrainedModel, causal: bool) -> Family:
    """The declared family of ``model``, else its facts read off the model itself.

    ``causal`` is what the model's attention layers said of themselves in a trial run.
    """
    declared = FAMILIES.get(model.config.model_type)
    if declared is not None:
        return declared
    positions = [m for n, m in model.named_modules() if n.endswith("position_embeddings")]
    after_padding = any(
        isinstance(m, nn.Embedding) and m.padding_idx is not None for m in positions
    )
    linear = {
        name.rpartition(".")[2]
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and ("attn" in name or "attention" in name)
    }
    return Family(
        model_type=model.config.model_type,
        causal=causal,
        pooled="last" if causal else "first",
        head=head_names(model)[-1],
        lora_targets=tuple(sorted(linear)),
        first_position="after-padding" if after_padding else "zero",
    )
