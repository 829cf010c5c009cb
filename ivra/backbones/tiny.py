"""Tiny models with random weights, built from their families' own configurations.

They need no download: the built-in job, the tests and a first look run on them. Their
tokenizer is the built-in data set's.
"""

import math
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
)

from ivra.tasks import Classification, QuestionAnswering, Task

AUTO: dict[str, Any] = {
    Classification.name: AutoModelForSequenceClassification,
    QuestionAnswering.name: AutoModelForQuestionAnswering,
}
"""What builds the model of a task."""

_WIDTH = 64
_LAYERS = 3
_HEADS = 4
_POSITIONS = 256
_AMPLITUDE = 0.03


def _encoder_sizes(vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "intermediate_size": 2 * _WIDTH,
        "max_position_embeddings": _POSITIONS,
    }


def _electra(vocabulary: int) -> PreTrainedConfig:
    return ElectraConfig(embedding_size=_WIDTH, **_encoder_sizes(vocabulary))


def _bert(vocabulary: int) -> PreTrainedConfig:
    return BertConfig(**_encoder_sizes(vocabulary))


def _roberta(vocabulary: int) -> PreTrainedConfig:
    return RobertaConfig(type_vocab_size=2, **_encoder_sizes(vocabulary))


def _xlm_roberta(vocabulary: int) -> PreTrainedConfig:
    return XLMRobertaConfig(type_vocab_size=2, **_encoder_sizes(vocabulary))


def _gpt2(vocabulary: int) -> PreTrainedConfig:
    return GPT2Config(
        vocab_size=vocabulary,
        n_positions=_POSITIONS,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=_HEADS,
        bos_token_id=None,
        eos_token_id=None,
    )


def _llama(vocabulary: int) -> PreTrainedConfig:
    return LlamaConfig(num_key_value_heads=_HEADS // 2, **_encoder_sizes(vocabulary))


TINY = {
    "tiny-electra": _electra,
    "tiny-bert": _bert,
    "tiny-roberta": _roberta,
    "tiny-xlm-roberta": _xlm_roberta,
    "tiny-gpt2": _gpt2,
    "tiny-llama": _llama,
}


def tiny_model(
    name: str, tokenizer: PreTrainedTokenizerFast, labels: tuple[str, ...], seed: int, task: Task
) -> PreTrainedModel:
    """A model of :data:`TINY` with a head for ``task`` and random weights drawn from ``seed``.

    The global random state is left as it was. Learned position embeddings start as sinusoids
    (Vaswani et al. 2017): a pretrained model knows what stands next to what, and one with random
    positions learns it from 2000 rows by luck.
    """
    config = TINY[name](len(tokenizer))
    config.pad_token_id = tokenizer.pad_token_id
    if labels:
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: index for index, label in enumerate(labels)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AUTO[task.name].from_config(config)
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and path.endswith(("position_embeddings", ".wpe")):
            _make_sinusoidal(module)
    return model


@torch.no_grad()
def _make_sinusoidal(positions: nn.Embedding) -> None:
    """Sines and cosines of falling frequency, about as large as random embeddings are."""
    count, width = positions.weight.shape
    place = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(-math.log(10_000) * torch.arange(0, width, 2) / width)
    positions.weight[:, 0::2] = _AMPLITUDE * torch.sin(place * rate)
    positions.weight[:, 1::2] = _AMPLITUDE * torch.cos(place * rate)
