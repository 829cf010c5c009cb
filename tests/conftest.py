"""Tiny models whose random weights are loud, and questions, for the tests of several parts."""

import copy
import json
import os
import random
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from transformers import LlamaConfig, LlamaForCausalLM

from ivra.backbones import Backbone, load_backbone
from ivra.data import Answer, Row, builtin_tokenizer

# The tensors are tiny, and the tests run in processes side by side: a thread each, theirs too.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

settings.register_profile("ivra", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("ivra")


@lru_cache
def _loud(name: str, labels: tuple[str, ...]) -> Backbone:
    backbone = load_backbone(name, labels, seed=3)
    factor = 4 if backbone.family.causal else 7
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


@pytest.fixture(scope="session")
def loud_model() -> Callable[[str, tuple[str, ...]], Backbone]:
    """The tiny model of a name with these labels, a fresh copy.

    Its weights are so large that logits differ between rows and every token matters.
    """
    return lambda name, labels: copy.deepcopy(_loud(name, labels))


def _saved_llama(folder: Path, key_value_heads: int, pad: bool, tied: bool) -> Path:
    tokenizer = builtin_tokenizer()
    tokenizer.eos_token = tokenizer.sep_token
    if not pad:
        tokenizer.pad_token = None
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_value_heads,
        intermediate_size=128,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A small Llama as it is published: a language model without a classification head.

    ``pad=False``: its tokenizer has no padding token, so that padding is the end of text.
    """

    @lru_cache
    def save(key_value_heads: int = 2, pad: bool = True, tied: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("llama") / "base"
        return _saved_llama(folder, key_value_heads, pad, tied)

    return save


THINGS = ("plot", "music", "soup", "service", "acting", "story")
WORDS = ("dull", "funny", "good", "bad", "great", "awful", "lovely", "boring")


def _question(name: str, draw: random.Random) -> Row:
    things = draw.sample(THINGS, 3)
    context, answers = "", {}
    for thing in things:
        word = draw.choice(WORDS)
        context += f"the {thing} was "
        answers[thing] = Answer(word, len(context))
        context += f"{word} . "
    asked = draw.choice(things)
    return Row(name, (f"the {asked} ?", context.strip()), answers=(answers[asked],), where=name)


@pytest.fixture(scope="session")
def questions() -> Callable[[int, int], list[Row]]:
    """So many questions of a seed, as "the plot ?" about "the music was good . the plot was dull
    ."; every thing has one word, which is the answer."""

    def make(count: int, seed: int) -> list[Row]:
        draw = random.Random(seed)
        return [_question(f"q{seed}-{number}", draw) for number in range(count)]

    return make


@pytest.fixture(scope="session")
def question_folder(
    questions: Callable[[int, int], list[Row]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of splits of them."""
    folder = tmp_path_factory.mktemp("questions")
    for seed, (split, count) in enumerate({"train": 64, "dev": 16, "test": 16}.items()):
        lines = []
        for row in questions(count, seed):
            question, context = row.texts
            answers = [answer._asdict() for answer in row.answers or ()]
            record = {"id": row.id, "question": question, "context": context, "answers": answers}
            lines.append(json.dumps(record) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder
