"""What stands at a name, a folder or a hub id: configuration, tokenizer, weights, labels."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from ivra.backbones.families import FAMILIES, head_names
from ivra.backbones.loading import Loading
from ivra.backbones.quantised import as_loaded, load_arguments
from ivra.backbones.tiny import AUTO, TINY
from ivra.errors import IvraError, first_line
from ivra.tasks import Classification, QuestionAnswering, Task

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
NEW_HEAD = re.compile(r"(^|\.)(score|classifier|pre_classifier|pooler|qa_outputs)\.")
POOLER = "pooler"
"""A part of the head that stands in the body."""


@contextmanager
def silent() -> Iterator[None]:
    """Let transformers say nothing but errors."""
    previous = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(previous)


def read_config(source: str, revision: str | None = None) -> PreTrainedConfig:
    """The configuration at ``source``, a folder or a hub id.

    Raises:
        IvraError: there is none, or transformers cannot read it.
    """
    if not source.strip():
        raise IvraError(f"no model named: expected a folder, a hub id, or one of {', '.join(TINY)}")
    folder = Path(source)
    if not folder.exists() and (source.startswith((".", "/")) or source.count("/") > 1):
        raise IvraError(f"no model folder at {source}: expected config.json and weights there")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise IvraError(f"{source} holds no config.json: expected a folder of save_pretrained")
    try:
        config = AutoConfig.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )
    except _DAMAGE as error:
        raise IvraError(
            f"cannot load a model from '{source}' ({first_line(error)}): expected a folder, a "
            f"hub id, or one of {', '.join(TINY)}"
        ) from error
    return config


def task_of_checkpoint(source: str, config: PreTrainedConfig, tasks: Sequence[Task]) -> Task:
    """The task of which the checkpoint is a model, else the first."""
    own = " ".join(config.architectures or ())
    task = next((task for task in tasks if task.architecture in own), tasks[0])
    kind, families = _KINDS[task.name]
    if config.model_type not in families:
        raise unsupported(source, config, f"has no {kind} in transformers")
    return task


def read_tokenizer(
    source: str, config: PreTrainedConfig, revision: str | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer at ``source``; ``config`` is given the padding token that it takes.

    Raises:
        IvraError: there is none, it gives no offsets, or it has nothing to pad with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision or "main", trust_remote_code=False
        )
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


def read_model(
    source: str,
    config: PreTrainedConfig,
    labels: Sequence[str] | None,
    seed: int,
    random_weights: bool,
    task: Task,
    loading: Loading,
    device: torch.device | str,
) -> tuple[PreTrainedModel, set[str]]:
    """The weights at ``source`` in a model for ``task``, and the names of those it lacks.

    Raises:
        IvraError: they cannot be read, or do not fit ``config``.
    """
    if labels is not None and len(labels) != config.num_labels:
        config.num_labels = len(labels)
    if not task.has_classes and config.num_labels != 2:
        config.num_labels = 2  # a start and an end logit
    try:
        kept = [] if loading.bits is None else _unquantised(config, task)
        with silent(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if random_weights:
                told = {} if loading.dtype == "auto" else {"dtype": getattr(torch, loading.dtype)}
                model = AUTO[task.name].from_config(config, **told)
                return as_loaded(model, loading, kept, device), set()
            model, info = AUTO[task.name].from_pretrained(
                source,
                config=config,
                revision=loading.revision or "main",
                output_loading_info=True,
                use_safetensors=True,
                **load_arguments(loading, kept, device),
            )
    except (*_DAMAGE, SafetensorError) as error:
        raise IvraError(
            f"cannot load the weights of {source} ({first_line(error)}): expected safetensors "
            "that fit its config.json and the data's number of classes"
        ) from error
    return model, set(info["missing_keys"])


def _unquantised(config: PreTrainedConfig, task: Task) -> list[str]:
    """What quantisation leaves alone, lest a head that is new be frozen as it was drawn."""
    with torch.device("meta"):
        return [*head_names(AUTO[task.name].from_config(config)), POOLER]


def class_names(
    config: PreTrainedConfig, labels: Sequence[str] | None, head_is_new: bool, source: str
) -> tuple[str, ...]:
    """The names of the classes in the head's order.

    Raises:
        IvraError: ``labels`` that a trained head does not know.
    """
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


def unsupported(source: str, config: PreTrainedConfig, why: str) -> IvraError:
    """The error that says why a model cannot be used, and which can."""
    return IvraError(
        f"{source} (model family '{config.model_type}') {why}; supported: {_SUPPORTED}"
    )
