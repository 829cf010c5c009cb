"""A Hugging Face model with a head, whose attention can be read and whose input can be thinned."""

import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ivra.attention import AttentionSizes, LayerReader
from ivra.backbones.adapters import Base, base_of, begin_anew, fill, learnt, save_adapter, twin
from ivra.backbones.encoding import Encoding
from ivra.backbones.families import Family
from ivra.backbones.hook import Capture, capturing, given_output
from ivra.backbones.order import padded_right, reordered_reading, reordered_tokens
from ivra.backbones.quantised import HALF, bits_of, pin
from ivra.backbones.sharding import put_together
from ivra.data import Batch
from ivra.errors import IvraError, unknown_name
from ivra.shapes import Hidden, Labels, Outputs, Places, TokenIds, TokenMask, TokenScores
from ivra.tasks import CLASSIFICATION, Task

if TYPE_CHECKING:
    from peft import PeftModel

_LEAST_KEEP = 1e-30
"""What a removed token is kept at, so that the derivative there exists: so little that even an
attention logit 50 above all others leaves nothing of it."""
_SHORTENED_GROUPS = 4
"""In how many groups of like length shortened rows run: fewer pad more, more are smaller."""


class _Output(NamedTuple):
    """What is used of a model's own output; ``hidden_states`` is empty unless asked for."""

    logits: Outputs
    hidden_states: tuple[Tensor, ...]


class Backbone(nn.Module):
    """A model, its tokenizer and its declared facts.

    Build one with :func:`ivra.backbones.load_backbone`, which also proves that the model can be
    read. ``source`` is what it was loaded from, ``labels`` the names of its classes in order,
    ``head_is_new`` whether its head still has to be trained, and ``task`` what the head is for.
    ``adapter`` is peft's view of ``model`` where LoRA adapts it: adapters and head alone are
    trained and saved then. ``sharded``: :func:`ivra.backbones.sharding.shard` has shared the body
    out among processes.
    """

    adapter: "PeftModel | None"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        family: Family,
        sizes: AttentionSizes,
        labels: tuple[str, ...],
        source: str,
        head_is_new: bool,
        task: Task = CLASSIFICATION,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.family = family
        self.sizes = sizes
        self.labels = labels
        self.source = source
        self.head_is_new = head_is_new
        self.task = task
        self.adapter = None
        self.sharded = False
        self._accepts = set(inspect.signature(model.forward).parameters)
        if getattr(model.config, "type_vocab_size", 0) < 2:
            # GPT-2 accepts token types, but looks them up among its words.
            self._accepts.discard("token_type_ids")

    @property
    def pad_id(self) -> int:
        """The id that padding (and, for pooling, a removed token) is given."""
        return int(self.model.config.pad_token_id)

    @property
    def mask_id(self) -> int:
        """The id of the mask token; padding's where the tokenizer has none."""
        mask = self.tokenizer.mask_token_id
        return self.pad_id if mask is None else int(mask)

    @property
    def padding_side(self) -> str:
        """The side the tokenizer pads on."""
        return str(self.tokenizer.padding_side)

    @property
    def most_tokens(self) -> int | None:
        """The length of the longest row that the model has learned positions for.

        ``None`` where it learns none (rotary ones).
        """
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and name.endswith(("position_embeddings", ".wpe")):
                return module.num_embeddings - self.family.position_start(self.model.config)
        return None

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return self.model.device

    @property
    def base(self) -> Base | None:
        """What the adapters adapt; ``None`` where there are none."""
        return None if self.adapter is None else base_of(self.adapter)

    @property
    def rounds(self) -> bool:
        """Whether a pass rounds to a few bits on its way: half precision, 8 bits on a GPU."""
        eight = bits_of(self.model) == 8 and self.device.type != "cpu"
        return self.model.dtype in HALF or eight

    @property
    def learnable(self) -> list[nn.Parameter]:
        """What training may move: adapters and head, or without adapters every parameter."""
        return list(self.parameters()) if self.adapter is None else learnt(self.adapter)

    def train(self, mode: bool = True) -> Self:
        """As in PyTorch, but for layers whose mode says more than "with dropout".

        So every pass computes the same function: :func:`ivra.backbones.quantised.pin`.
        """
        super().train(mode)
        pin(self.model)
        return self

    def save_pretrained(self, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
        """The model and its tokenizer, readable by transformers alone; of a model with adapters
        these, the head and the name of the base, readable by peft.

        ``weights`` are those of :func:`ivra.backbones.sharding.gathered`.
        """
        if self.adapter is None:
            self.model.save_pretrained(folder, state_dict=weights)
        else:
            save_adapter(self.adapter, folder)
        self.tokenizer.save_pretrained(folder)

    def load_adapter(self, folder: Path) -> None:
        """Take over adapters and head that :meth:`save_pretrained` wrote, in place."""
        assert self.adapter is not None
        fill(self.adapter, folder)

    def sibling(self, seed: int, saved: Path | None = None) -> "Backbone":
        """Other adapters and another head on this one's base, drawn from ``seed`` or ``saved``.

        The base is in memory once: its weights are the same tensors. Only for a model with
        adapters, whose training leaves the base alone.
        """
        assert self.adapter is not None
        other: Backbone = twin(self, self.adapter, (self.tokenizer, self.family, self.task))
        assert other.adapter is not None
        begin_anew(other.adapter, seed)
        if saved is not None:
            other.load_adapter(saved)
        other.head_is_new = saved is None
        return other.eval()

    @property
    def embeddings(self) -> nn.Module:
        """The layer that turns token ids into embeddings."""
        return self.model.get_input_embeddings()

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's layers in order, each one attention and one feed-forward part.

        Raises:
            IvraError: the model keeps them in no list of its own.
        """
        for module in self.model.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.sizes.layers:
                return module
        raise IvraError(
            f"{self.source} keeps its {self.sizes.layers} layers in no list: expected a model "
            "whose layers can be told apart; choose an explainer without a layer of its own"
        )

    def embed(self, ids: TokenIds) -> Hidden:
        """What :attr:`embeddings` gives for ``ids``; no hook on that layer sees it."""
        if self.sharded:
            put_together(self.model)
        embedded: Tensor = self.embeddings.forward(ids)
        return embedded

    def encode(
        self,
        batch: Batch,
        reader: LayerReader | None = None,
        *,
        hidden: bool = False,
        embeddings: Hidden | None = None,
    ) -> Encoding:
        """One forward pass; ``reader`` (for instance the attention module) reads every layer.

        ``embeddings`` enter in the place of the tokens' own, in the batch's order.
        """
        batch, back = self.head_first(batch)
        if embeddings is not None and back is not None:
            embeddings = torch.zeros_like(embeddings).scatter(
                1, back[..., None].expand_as(embeddings), embeddings
            )
        capture = Capture(batch.attention_mask, reader)
        ids = self._findable(batch.input_ids, batch.attention_mask)
        if embeddings is None and ids is not batch.input_ids:
            embeddings = self.embed(batch.input_ids)
        with nullcontext() if embeddings is None else given_output(self.embeddings, embeddings):
            output = self._run(batch, ids, batch.attention_mask, capture, hidden)
        readings = tuple(capture.readings)
        if any(reading.attending is not None for reading in readings):
            places = self.readout_places(batch, output.logits)
            readings = tuple(reading.settled(places) for reading in readings)
        states = torch.stack(output.hidden_states[1:]).mean(0) if hidden else None
        if back is not None:
            readings = tuple(reordered_reading(reading, back) for reading in readings)
            states = None if states is None else reordered_tokens(states, back)
        return Encoding(output.logits, readings, states, self.task)

    def classify(
        self,
        ids: TokenIds,
        types: TokenIds,
        visible: TokenMask,
        numbered: TokenMask,
        answerable: TokenMask,
    ) -> Outputs:
        """Logits alone, of rows padded on the right whose first token is visible.

        ``numbered`` tokens count for positions; one that is numbered but not visible leaves a gap.
        At ``answerable`` tokens an answer may begin and end.
        """
        context = torch.where(answerable, 1, -1)
        batch = Batch(
            input_ids=ids,
            token_type_ids=types,
            attention_mask=visible,
            explainable=visible,
            segment=context,
            word_ids=context,
            labels=ids[:, 0],
            rationale=visible,
            annotated=visible[:, 0],
            answers=ids[:, :1].expand(-1, 2),
            items=(),
        )
        return self._run(batch, ids, numbered, Capture(visible)).logits

    def rerun(self, batch: Batch, keep: TokenScores, removal: str = "attention") -> Outputs:
        """Logits of the same rows with each token kept in proportion ``keep`` in ``[0, 1]``.

        * ``"attention"`` multiplies the weight that every token gives to token ``j`` by
          ``keep_j``. A token kept at exactly 0 is removed: the rest is renumbered, and for a 0/1
          ``keep`` the logits are those of the row with the tokens deleted (to about 1e-5), at the
          places that they had.
        * ``"embedding"`` replaces a token's embedding by ``keep * e + (1 - keep) * e_ref``, with
          ``e_ref`` that of the mask token (padding where the tokenizer has none).

        A row of which nothing would be left keeps its first token. Both are differentiable in
        ``keep`` on the whole of ``[0, 1]`` (in float16 the gradient at exactly 0 is lost).
        ``keep`` is read as 1 wherever ``batch.explainable`` is false. ``keep = 1`` everywhere is
        the plain forward; ``"attention"`` takes more than 1 too, as more attention. A 0/1 ``keep``
        that nothing is differentiated by costs no more than the tokens that are left.
        """
        batch, back = self.head_first(batch)
        if back is not None:
            keep = torch.zeros_like(keep).scatter(1, back, keep)
        keep = torch.where(batch.explainable, keep, torch.ones_like(keep))
        if removal == "embedding":
            capture = Capture(batch.attention_mask)
            with given_output(self.embeddings, self._mixed_embeddings(batch.input_ids, keep)):
                ids = self._findable(batch.input_ids, batch.attention_mask)
                return self._run(batch, ids, batch.attention_mask, capture).logits
        if removal != "attention":
            raise unknown_name("removal", removal, ["attention", "embedding"])
        kept = batch.attention_mask & (keep > 0)
        first = batch.attention_mask & (batch.attention_mask.cumsum(-1) == 1)
        rescued = first & ~kept.any(-1, keepdim=True)
        kept, keep = kept | rescued, torch.where(rescued, torch.ones_like(keep), keep)
        if self._may_shorten(keep):
            return self._shortened(batch, kept)
        capture = Capture(batch.attention_mask, key_bias=(keep + _LEAST_KEEP).log())
        # A removed token's id becomes padding, so that a head that reads the last token finds
        # the last one kept; its own embedding still enters, or nothing could bring it back.
        ids = self._findable(torch.where(kept, batch.input_ids, self.pad_id), kept)
        with given_output(self.embeddings, self.embed(batch.input_ids)):
            logits = self._run(batch, ids, kept, capture).logits
        return self.task.kept(logits, keep)

    def _may_shorten(self, keep: TokenScores) -> bool:
        """Whether ``keep`` can be had by deletion: nothing asks for a derivative, every token is
        there or not, and an outcome has no places that deletion would move. Processes that share
        the model out need as many passes each, whatever their rows."""
        moving = keep.requires_grad or any(p.requires_grad for p in self.parameters())
        if self.sharded or not self.task.has_classes or (torch.is_grad_enabled() and moving):
            return False
        return bool(((keep == 0) | (keep == 1)).all())

    def _shortened(self, batch: Batch, kept: TokenMask) -> Outputs:
        """Logits of the rows with all but their ``kept`` tokens deleted, like lengths together."""
        counts = kept.sum(-1)
        order = kept.logical_not().int().argsort(dim=1, stable=True)
        logits = None
        for rows in counts.argsort(descending=True).chunk(_SHORTENED_GROUPS):
            place = order[rows, : int(counts[rows[0]])]
            present = kept[rows].gather(1, place)
            ids = batch.input_ids[rows].gather(1, place).where(present, self.pad_id)
            types = batch.token_type_ids[rows].gather(1, place).where(present, 0)
            found = self.classify(ids, types, present, present, present)
            if logits is None:
                logits = found.new_empty(len(batch), *found.shape[1:])
            logits[rows] = found
        assert logits is not None
        return logits

    def _findable(self, ids: TokenIds, visible: TokenMask) -> TokenIds:
        """``ids`` for a head that reads the last token whose id is not that of padding.

        In a row of nothing but that id (pad = eos) it would read column 0, be that padding. The
        first visible token of such a row, which is what it reads in the row alone, gets another
        id; its embedding has to be given by a hook then.
        """
        lost = (visible & (ids != self.pad_id)).any(-1, keepdim=True).logical_not()
        if self.family.pooled != "last" or not bool(lost.any()):
            return ids
        first = visible & (visible.cumsum(-1) == 1)
        return torch.where(first & lost, int(self.pad_id == 0), ids)

    def _run(
        self,
        batch: Batch,
        ids: TokenIds,
        numbered: TokenMask,
        capture: Capture,
        hidden: bool = False,
    ) -> _Output:
        inputs = {"input_ids": ids, "attention_mask": batch.attention_mask.long()}
        if "token_type_ids" in self._accepts:
            inputs["token_type_ids"] = batch.token_type_ids
        if "position_ids" in self._accepts:
            start = self.family.position_start(self.model.config)
            order = numbered.long().cumsum(-1) - 1
            inputs["position_ids"] = order.clamp_min(0) + start
        flags: dict[str, bool] = {}
        if hidden:
            flags["output_hidden_states"] = True
        if "use_cache" in self._accepts:
            flags["use_cache"] = False
        with capturing(capture):
            output = self.model(**inputs, **flags)
        logits = self.task.outcome(output, batch)
        return _Output(logits, tuple(output.hidden_states or ()))

    def head_first(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Move left padding to the right for models whose head reads the first token.

        The second value is each token's place in the new order (``None`` where nothing moved).
        """
        if self.family.pooled != "first" or bool(batch.attention_mask[:, 0].all()):
            return batch, None
        return padded_right(batch)

    def pooled_place(self, batch: Batch) -> Labels:
        """Which token of each row the classification head reads, ``(B,)``.

        The first visible one, or the last visible one whose id is not that of padding (the first
        visible one where there is none).
        """
        visible = batch.attention_mask
        first = visible.int().argmax(-1)
        if self.family.pooled == "first":
            return first
        read = visible & (batch.input_ids != self.pad_id)
        last = read.shape[1] - 1 - read.flip(-1).int().argmax(-1)
        return torch.where(read.any(-1), last, first)

    def readout_places(self, batch: Batch, outcome: Outputs) -> Places:
        """The tokens of each row that the head reads its prediction off, ``(B, P)``.

        That of :meth:`pooled_place`, or of a head that reads every token those of the prediction.
        """
        places = self.task.places_of(self.task.predict(outcome))
        return self.pooled_place(batch)[:, None] if places is None else places

    def _mixed_embeddings(self, ids: TokenIds, keep: TokenScores) -> Hidden:
        """The embeddings of ``ids``, mixed with that of the mask token by ``keep``."""
        own = self.embed(ids)
        share = keep[..., None].to(own)
        return share * own + (1 - share) * self.embed(torch.full_like(ids, self.mask_id))
