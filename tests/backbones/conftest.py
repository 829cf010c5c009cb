"""Tiny models whose random weights are loud, and Hugging Face's own logits for comparison."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ivra.backbones import TINY, Backbone
from ivra.data import Item, Row, encode_rows

LABELS = ("no", "maybe", "yes")
TEXTS = (
    "not good .",
    "a very dull film , and never funny at all .",
    "great !",
    "the plot was hardly good , but the music was not bad either ; we liked it .",
)
PAIRS = (("a good film .", "never dull"), ("bad", "the plot was hardly good at all ."))


@pytest.fixture(params=list(TINY))
def backbone(request: pytest.FixtureRequest, loud: Callable[[str], Backbone]) -> Backbone:
    """Each tiny model in turn, a fresh copy."""
    return loud(request.param)


@pytest.fixture
def loud(loud_model: Callable[[str, tuple[str, ...]], Backbone]) -> Callable[[str], Backbone]:
    """The tiny model of a name, a fresh copy."""
    return lambda name: loud_model(name, LABELS)


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
