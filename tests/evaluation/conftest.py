"""Tiny models whose random weights are loud, built-in rows for them, and a run without training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Item, Row, encode_rows, read_rows
from ivra.training import Run, TrainConfig

LABELS = ("negative", "positive")
TEXTS = (
    "not good .",
    "a very dull film , and never funny at all .",
    "great !",
    "the plot was hardly good , but the music was not bad either ; we liked it .",
    "bad",
    "a good film .",
)


@pytest.fixture
def loud(loud_model: Callable[[str, tuple[str, ...]], Backbone]) -> Callable[[str], Backbone]:
    """The tiny model of a name, a fresh copy."""
    return lambda name: loud_model(name, LABELS)


@pytest.fixture(params=["tiny-electra", "tiny-gpt2"])
def backbone(request: pytest.FixtureRequest, loud: Callable[[str], Backbone]) -> Backbone:
    """An encoder and a decoder, fresh copies."""
    return loud(request.param)


@pytest.fixture
def electra(loud: Callable[[str], Backbone]) -> Backbone:
    """The encoder, a fresh copy."""
    return loud("tiny-electra")


@pytest.fixture
def loud_gpt2(loud: Callable[[str], Backbone]) -> Backbone:
    """The decoder, a fresh copy."""
    return loud("tiny-gpt2")


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
