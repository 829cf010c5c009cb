"""From a name, a folder or a hub id to a :class:`Backbone` that is known to work."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ivra.attention import AttentionSizes, LayerInputs, LayerReading
from ivra.backbones.adapters import (
    SavedAdapter,
    revision_of,
    saved_adapter,
    with_new_adapter,
    with_saved_adapter,
)
from ivra.backbones.backbone import Backbone
from ivra.backbones.checkpoint import (
    NEW_HEAD,
    POOLER,
    class_names,
    read_config,
    read_model,
    read_tokenizer,
    silent,
    task_of_checkpoint,
    unsupported,
)
from ivra.backbones.families import family_of, head_names
from ivra.backbones.hook import NAME, Capture, capturing, recomputed
from ivra.backbones.loading import AS_IT_IS, Loading
from ivra.backbones.quantised import as_loaded, dequantised, is_quantised, pin
from ivra.backbones.tiny import TINY, tiny_model
from ivra.data import builtin_tokenizer
from ivra.errors import IvraError
from ivra.tasks import CLASSIFICATION, QuestionAnswering, Task

TASKS: tuple[Task, ...] = (CLASSIFICATION, QuestionAnswering())


def load_backbone(
    source: str,
    labels: Sequence[str] | None = None,
    *,
    tasks: Sequence[Task] = TASKS,
    seed: int = 0,
    random_weights: bool = False,
    loading: Loading = AS_IT_IS,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Load a model with a head and prove that its attention can be read.

    Args:
        source: a name of ``tiny.TINY`` (random weights), a folder written by
            ``save_pretrained`` (of a model, or of LoRA adapters, which name their base), or a hub
            id such as ``google/electra-small-discriminator``.
        labels: class names; ``None`` takes the checkpoint's own (for a tiny model: negative,
            positive). A checkpoint whose classification head is trained keeps its own order.
            Unused by a task without classes.
        tasks: what the head may be for: the task of which the checkpoint is a model, else the
            first.
        seed: draws new weights (a head the checkpoint lacks, adapters, or a tiny model).
        random_weights: build the architecture of ``source`` with weights drawn from ``seed``.
        loading: numbers, adapters and checkpointing, see :class:`Loading`.
        device: where the model will be.

    Raises:
        IvraError: nothing at ``source``; a family without a head for the task or not on
            the attention interface (the message lists what is supported); no fast tokenizer;
            ``labels`` that a trained head does not know; adapters that do not fit, or without
            the head that they were trained with.
    """
    saved = saved_adapter(source)
    found = _read(source, saved, labels, tasks, seed, random_weights, loading, device)
    backbone = _proved(found, source)
    if saved is not None:
        _put_on(backbone, saved, found.new, loading.merge)
    elif loading.lora is not None:
        learnt = dict.fromkeys((*head_names(found.model), *found.new))
        backbone.adapter = with_new_adapter(
            found.model, backbone.family, loading.lora, [*learnt], *found.base, seed
        )
    return _ready(backbone, loading, device)


def _put_on(backbone: Backbone, saved: SavedAdapter, new: tuple[str, ...], merge: bool) -> None:
    """Give ``backbone`` the adapters and the head that were saved, or with ``merge`` their sum."""
    if merge and is_quantised(backbone.model):
        with silent():
            backbone.model = dequantised(backbone.model)
    adapted = with_saved_adapter(backbone.model, saved, new)
    if merge:
        backbone.model = adapted.merge_and_unload()
    else:
        backbone.adapter = adapted


class _Found(NamedTuple):
    """What was read: ``new`` names the parts of the head that had to be drawn, ``base`` the model
    that adapters would be adapters of, with its revision."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    labels: tuple[str, ...]
    task: Task
    new: tuple[str, ...]
    head_is_new: bool
    base: tuple[str, str | None]


def _read(
    source: str,
    saved: SavedAdapter | None,
    labels: Sequence[str] | None,
    tasks: Sequence[Task],
    seed: int,
    random_weights: bool,
    loading: Loading,
    device: torch.device | str,
) -> _Found:
    """The model at ``source``, or the base of the adapters there, with their labels."""
    base = source if saved is None else saved.base
    if source in TINY:
        task, tokenizer = tasks[0], builtin_tokenizer()
        names = tuple(labels or ("negative", "positive")) if task.has_classes else ()
        return _tiny(base, tokenizer, names, task, seed, loading, device)
    if saved is not None:
        loading = replace(loading, revision=saved.revision)
    described = source if (Path(source) / "config.json").is_file() else base
    revision = loading.revision if described == base else None
    config = read_config(described, revision)
    task = task_of_checkpoint(source, config, tasks)
    tokenizer = read_tokenizer(described, config, revision)
    labels = labels if task.has_classes else None
    if saved is not None and base in TINY:
        names = class_names(config, labels, False, source) if task.has_classes else ()
        drawn = seed if saved.seed is None else saved.seed
        found = _tiny(base, tokenizer, names, task, drawn, loading, device)
        return found._replace(head_is_new=random_weights)
    model, missing = read_model(base, config, labels, seed, random_weights, task, loading, device)
    new = dict.fromkeys(match[2] for key in missing if (match := NEW_HEAD.search(key)))
    body = [key for key in missing if not NEW_HEAD.search(key)]
    if body and not random_weights:
        raise IvraError(
            f"{base} lacks {len(body)} weights of the model body (first: {body[0]}): expected "
            "a whole checkpoint; check that it was saved from the same architecture"
        )
    head_is_new = random_weights or bool(new and saved is None)
    names = class_names(model.config, labels, head_is_new, source) if task.has_classes else ()
    commit = getattr(config, "_commit_hash", None) or loading.revision
    if Path(base).is_dir():
        base, commit = str(Path(base).resolve()), None
    return _Found(model, tokenizer, names, task, tuple(new), head_is_new, (base, commit))


def _tiny(
    name: str,
    tokenizer: PreTrainedTokenizerFast,
    labels: tuple[str, ...],
    task: Task,
    seed: int,
    loading: Loading,
    device: torch.device | str,
) -> _Found:
    model = tiny_model(name, tokenizer, labels, seed, task)
    new = head_names(model)
    model = as_loaded(model, loading, [*new, POOLER], device)
    return _Found(model, tokenizer, labels, task, tuple(new), True, (name, revision_of(seed)))


def _ready(backbone: Backbone, loading: Loading, device: torch.device | str) -> Backbone:
    """On its device, in the mode that passes of a difference need."""
    model = backbone.model
    if loading.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None)
        try:
            (enable or model.gradient_checkpointing_enable)(
                {"use_reentrant": False, "context_fn": recomputed}
            )
        except ValueError as error:
            raise unsupported(
                backbone.source, model.config, "has no gradient checkpointing in transformers"
            ) from error
    backbone.eval()
    return backbone if is_quantised(model) else backbone.to(device)


class _Sizes:
    """Reads nothing but the sizes of each layer."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []

    def read_layer(self, layer: int, inputs: LayerInputs) -> LayerReading:
        _, heads, _, dim = inputs.query.shape
        self.seen.append((heads, dim, inputs.value.shape[-1]))
        return LayerReading(inputs.query[..., 0], None)


def _proved(found: _Found, source: str) -> Backbone:
    """Switch the model to our attention function and run it once to see that it is used."""
    model, task = found.model, found.task
    if not model._supports_attention_backend:
        raise unsupported(source, model.config, "is not on transformers' attention interface")
    model.set_attn_implementation(NAME)
    model.eval()
    pin(model)
    sizes = _Sizes()
    ids = torch.full((1, 3), 0 if model.config.pad_token_id else 1, device=model.device)
    visible = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad(), capturing(Capture(visible, sizes)) as capture:
        model(input_ids=ids, attention_mask=visible.long())
    expected = model.config.get_text_config().num_hidden_layers
    if len(sizes.seen) != expected or len(set(sizes.seen)) != 1:
        raise unsupported(
            source,
            model.config,
            f"shows {len(sizes.seen)} self-attention layers of sizes {sorted(set(sizes.seen))} "
            f"where {expected} of one size were expected",
        )
    heads, dim, value_dim = sizes.seen[0]
    shape = AttentionSizes(expected, heads, dim, value_dim, max(1, len(found.labels)), task.places)
    family = family_of(model, capture.causal)
    if task.head is not None:
        family = replace(family, pooled="none", head=task.head)
    return Backbone(
        model, found.tokenizer, family, shape, found.labels, source, found.head_is_new, task
    )
