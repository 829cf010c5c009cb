"""Tiny models whose random weights are loud, built-in rows for them, and a run without training."""

import copy
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Item, Row, encode_rows, read_rows
from ivra.training import Run, TrainConfig

torch.set_num_threads(1)

TEXTS = (
    "not good .",
    "a very dull film , and never funny at all .",
    "great !",
    "the plot was hardly good , but the music was not bad either ; we liked it .",
    "bad",
    "a good film .",
)


@lru_cache
def _loud(name: str) -> Backbone:
    """Weights large enough that logits differ between rows and every token matters."""
    backbone = load_backbone(name, ("negative", "positive"), seed=3)
    factor = 4 if backbone.family.causal else 7
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


@pytest.fixture
def loud() -> Callable[[str], Backbone]:
    """The tiny model of a name, a fresh copy."""
    return lambda name: copy.deepcopy(_loud(name))


@pytest.fixture(params=["tiny-electra", "tiny-gpt2"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    """An encoder and a decoder, fresh copies."""
    return copy.deepcopy(_loud(request.param))


@pytest.fixture
def electra() -> Backbone:
    """The encoder, a fresh copy."""
    return copy.deepcopy(_loud("tiny-electra"))


@pytest.fixture
def items(electra: Backbone) -> list[Item]:
    """Six rows of different lengths; all tiny models share one tokenizer."""
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return encode_rows(rows, electra.tokenizer, None, 64)


@pytest.fixture
def make_run(electra: Backbone, tmp_path: Path) -> Callable[[list[dict]], Run]:
    """A run, untrained, whose data is the records given (the same for all its parts)."""

    def make(records: list[dict]) -> Run:
        folder = tmp_path / "data"
        folder.mkdir()
        for part in ("train", "dev", "test"):
            lines = [json.dumps(record) + "\n" for record in records]
            (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
        config = TrainConfig(data=str(folder), max_length=48, batch_size=16, bins=(10.0, 50.0))
        module = InterpretableAttention(electra.sizes).eval()
        return Run(tmp_path / "by-hand", config, electra, module, {"seed": 0})

    return make


@pytest.fixture(scope="session")
def records() -> list[dict]:
    """Twenty built-in rows as they stand in a JSON Lines file, rationales included."""
    return [
        {"text": row.texts[0], "label": row.label, "rationale": (row.rationale or ((),))[0]}
        for row in read_rows("builtin", "test")[:20]
    ]
