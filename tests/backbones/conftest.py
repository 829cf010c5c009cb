"""Tiny models whose random weights are loud, and Hugging Face's own logits for comparison."""

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from ivra.backbones import TINY, Backbone, load_backbone
from ivra.data import Item, Row, encode_rows

torch.set_num_threads(1)

TEXTS = (
    "not good .",
    "a very dull film , and never funny at all .",
    "great !",
    "the plot was hardly good , but the music was not bad either ; we liked it .",
)
PAIRS = (("a good film .", "never dull"), ("bad", "the plot was hardly good at all ."))


@lru_cache
def _loud(name: str) -> Backbone:
    """Weights large enough that logits differ between rows and every token matters."""
    backbone = load_backbone(name, ("no", "maybe", "yes"), seed=3)
    factor = 4 if backbone.family.causal else 7
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


@pytest.fixture(params=list(TINY))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """Each tiny model in turn, a fresh copy."""
    return copy.deepcopy(_loud(request.param))


@pytest.fixture
def loud() -> Callable[[str], Backbone]:
    """The tiny model of a name, a fresh copy."""
    return lambda name: copy.deepcopy(_loud(name))


@pytest.fixture
def items(loud: Callable[[str], Backbone]) -> list[Item]:
    """Four rows of very different lengths."""
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return encode_rows(rows, loud("tiny-bert").tokenizer, None, 64)


@pytest.fixture
def pairs(loud: Callable[[str], Backbone]) -> list[Item]:
    """Two rows of two texts, with token types 0 and 1."""
    rows = [Row(f"pair-{i}", texts) for i, texts in enumerate(PAIRS)]
    return encode_rows(rows, loud("tiny-bert").tokenizer, None, 64)


def _reference(backbone: Backbone, items: Sequence[Item], **flags: bool) -> list:
    model = copy.deepcopy(backbone.model).eval()
    model.set_attn_implementation("eager")
    outputs = []
    for item in items:
        inputs = {
            "input_ids": torch.tensor([item.input_ids]),
            "attention_mask": torch.ones(1, len(item.input_ids), dtype=torch.long),
        }
        if model.config.model_type not in ("gpt2", "llama"):
            inputs["token_type_ids"] = torch.tensor([item.token_type_ids])
        with torch.no_grad():
            outputs.append(model(**inputs, **flags))
    return outputs


@pytest.fixture
def reference_outputs() -> Callable[..., list]:
    """What transformers itself (eager attention) says of each row alone and unpadded."""
    return _reference


@pytest.fixture
def reference_logits() -> Callable[[Backbone, Sequence[Item]], Tensor]:
    """The logits of each row alone and unpadded, by transformers itself."""
    return lambda backbone, items: torch.cat([o.logits for o in _reference(backbone, items)])
