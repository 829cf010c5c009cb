"""From a name, a folder or a hub id to a :class:`Backbone` that is known to work."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from ivra.attention import AttentionSizes, LayerInputs, LayerReading
from ivra.backbones.backbone import Backbone
from ivra.backbones.families import FAMILIES, family_of
from ivra.backbones.hook import NAME, Capture, capturing
from ivra.backbones.tiny import AUTO, TINY, tiny_model
from ivra.data import builtin_tokenizer
from ivra.errors import IvraError, first_line
from ivra.tasks import CLASSIFICATION, Classification, QuestionAnswering, Task

TASKS: tuple[Task, ...] = (CLASSIFICATION, QuestionAnswering())
_KINDS = {
    Classification.name: ("sequence classifier", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
    QuestionAnswering.name: (
        "model for question answering",
        MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    ),
}
"""What transformers' model for a task is called here, and which families have one."""
_SUPPORTED = (
    f"{', '.join(FAMILIES)}, and every other sequence classifier on transformers' attention "
    "interface"
)
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What transformers raises over files that are missing or hold something else than they should."""
_NEW_HEAD = re.compile(r"(^|\.)(score|classifier|pre_classifier|pooler|qa_outputs)\.")


def load_backbone(
    source: str,
    labels: Sequence[str] | None = None,
    *,
    tasks: Sequence[Task] = TASKS,
    seed: int = 0,
    random_weights: bool = False,
) -> Backbone:
    """Load a model with a head and prove that its attention can be read.

    Args:
        source: a name of ``tiny.TINY`` (random weights), a folder written by
            ``save_pretrained``, or a hub id such as ``google/electra-small-discriminator``.
        labels: class names; ``None`` takes the checkpoint's own (for a tiny model: negative,
            positive). A checkpoint whose classification head is trained keeps its own order.
            Unused by a task without classes.
        tasks: what the head may be for: the task of which the checkpoint is a model, else the
            first.
        seed: draws new weights (a head the checkpoint lacks, or a tiny model).
        random_weights: build the architecture of ``source`` with weights drawn from ``seed``.

    Raises:
        IvraError: nothing at ``source``; a family without a head for the task or not on
            the attention interface (the message lists what is supported); no fast tokenizer;
            ``labels`` that a trained head does not know.
    """
    if source in TINY:
        task, tokenizer = tasks[0], builtin_tokenizer()
        names = tuple(labels or ("negative", "positive")) if task.has_classes else ()
        model = tiny_model(source, tokenizer, names, seed, task)
        return _proved(model, tokenizer, names, source, True, task)
    config = _config(source)
    task = _task(source, config, tasks)
    tokenizer = _tokenizer(source, config)
    labels = labels if task.has_classes else None
    model, missing = _model(source, config, labels, seed, random_weights, task)
    head_is_new = random_weights or any(_NEW_HEAD.search(key) for key in missing)
    body = [key for key in missing if not _NEW_HEAD.search(key)]
    if body and not random_weights:
        raise IvraError(
            f"{source} lacks {len(body)} weights of the model body (first: {body[0]}): expected "
            "a whole checkpoint; check that it was saved from the same architecture"
        )
    names = _label_names(model.config, labels, head_is_new, source) if task.has_classes else ()
    return _proved(model, tokenizer, names, source, head_is_new, task)


def _config(source: str) -> PreTrainedConfig:
    if not source.strip():
        raise IvraError(f"no model named: expected a folder, a hub id, or one of {', '.join(TINY)}")
    folder = Path(source)
    if not folder.exists() and (source.startswith((".", "/")) or source.count("/") > 1):
        raise IvraError(f"no model folder at {source}: expected config.json and weights there")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise IvraError(f"{source} holds no config.json: expected a folder of save_pretrained")
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except _DAMAGE as error:
        raise IvraError(
            f"cannot load a model from '{source}' ({first_line(error)}): expected a folder, a "
            f"hub id, or one of {', '.join(TINY)}"
        ) from error
    return config


def _task(source: str, config: PreTrainedConfig, tasks: Sequence[Task]) -> Task:
    """The task of which the checkpoint is a model, else the first."""
    own = " ".join(config.architectures or ())
    task = next((task for task in tasks if task.architecture in own), tasks[0])
    kind, families = _KINDS[task.name]
    if config.model_type not in families:
        raise _unsupported(source, config, f"has no {kind} in transformers")
    return task


def _tokenizer(source: str, config: PreTrainedConfig) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise IvraError(
            f"cannot load a tokenizer from '{source}' ({first_line(error)}): expected "
            "tokenizer.json beside the weights"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise IvraError(
            f"cannot load a tokenizer from '{source}' (it has no words): expected tokenizer.json "
            "beside the weights"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise IvraError(f"{source} has no fast tokenizer: expected tokenizer.json for offsets")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise IvraError(f"the tokenizer of {source} has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _model(
    source: str,
    config: PreTrainedConfig,
    labels: Sequence[str] | None,
    seed: int,
    random_weights: bool,
    task: Task,
) -> tuple[PreTrainedModel, set[str]]:
    if labels is not None and len(labels) != config.num_labels:
        config.num_labels = len(labels)
    if not task.has_classes and config.num_labels != 2:
        config.num_labels = 2  # a start and an end logit
    previous = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if random_weights:
                return AUTO[task.name].from_config(config), set()
            model, info = AUTO[task.name].from_pretrained(
                source, config=config, output_loading_info=True, use_safetensors=True
            )
    except (*_DAMAGE, SafetensorError) as error:
        raise IvraError(
            f"cannot load the weights of {source} ({first_line(error)}): expected safetensors "
            "that fit its config.json and the data's number of classes"
        ) from error
    finally:
        transformers_logging.set_verbosity(previous)
    return model, set(info["missing_keys"])


def _label_names(
    config: PreTrainedConfig, labels: Sequence[str] | None, head_is_new: bool, source: str
) -> tuple[str, ...]:
    own = tuple(str(name) for _, name in sorted((config.id2label or {}).items()))
    if labels is None:
        return own
    generic = all(name == f"LABEL_{i}" for i, name in enumerate(own))
    matched = {name.lower(): name for name in labels}
    if not head_is_new and set(labels) == set(own):
        return own
    if head_is_new or generic:
        return _named(config, tuple(labels))
    if set(matched) == {name.lower() for name in own}:
        return _named(config, tuple(matched[name.lower()] for name in own))
    raise IvraError(
        f"the trained head of {source} knows the labels {', '.join(own)}, the data has "
        f"{', '.join(labels)}: rename the data's labels, or start from a checkpoint without a head"
    )


def _named(config: PreTrainedConfig, names: tuple[str, ...]) -> tuple[str, ...]:
    """``names``, also written into ``config``, so that a saved model keeps them."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}
    return names


class _Sizes:
    """Reads nothing but the sizes of each layer."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        _, heads, _, dim = inputs.query.shape
        self.seen.append((heads, dim, inputs.value.shape[-1]))
        return LayerReading(inputs.query[..., 0], None)


def _proved(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    labels: tuple[str, ...],
    source: str,
    head_is_new: bool,
    task: Task,
) -> Backbone:
    """Switch the model to our attention function and run it once to see that it is used."""
    if not model._supports_attention_backend:
        raise _unsupported(source, model.config, "is not on transformers' attention interface")
    model.set_attn_implementation(NAME)
    model.eval()
    sizes = _Sizes()
    ids = torch.full((1, 3), 0 if model.config.pad_token_id else 1)
    visible = torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad(), capturing(Capture(visible, sizes)) as capture:
        model(input_ids=ids, attention_mask=visible.long())
    expected = model.config.get_text_config().num_hidden_layers
    if len(sizes.seen) != expected or len(set(sizes.seen)) != 1:
        raise _unsupported(
            source,
            model.config,
            f"shows {len(sizes.seen)} self-attention layers of sizes {sorted(set(sizes.seen))} "
            f"where {expected} of one size were expected",
        )
    heads, dim, value_dim = sizes.seen[0]
    shape = AttentionSizes(expected, heads, dim, value_dim, max(1, len(labels)))
    family = family_of(model, capture.causal)
    if task.head is not None:
        family = replace(family, pooled="none", head=task.head)
    return Backbone(model, tokenizer, family, shape, labels, source, head_is_new, task)


def _unsupported(source: str, config: PreTrainedConfig, why: str) -> IvraError:
    return IvraError(
        f"{source} (model family '{config.model_type}') {why}; supported: {_SUPPORTED}"
    )
