"""What answers a criterion's questions: a stand-in of a few numbers, and two real tiny models."""

import copy
from functools import lru_cache
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch

from ivra.attention import InterpretableAttention, masked_softmax, masked_sparsemax
from ivra.backbones import Backbone, load_backbone
from ivra.contract.rows import WORDS, make_batch, make_items
from ivra.data import Batch
from ivra.evaluation import delete
from ivra.shapes import Hidden, Logits, Saliency, TokenScores
from ivra.training import ScaffoldedStudent, endless

Kind = Literal["soft", "sparse", "one-hot", "equal"]
"""Of a saliency: positive, with exact zeros, all on one token, the same on each token."""
LABELS = ("no", "maybe", "yes")
WIDTH, STATES = 4, 64
"""Features of a token, and of a hidden state."""
OFFSET = 3.0
"""What hidden states have in common, as those of real models do."""
LOUD = 1e3
"""What hidden states are on padding: nobody may look there."""


class Shown(NamedTuple):
    """What a model shows of a batch."""

    logits: Logits
    saliency: Saliency
    hidden: Hidden


@runtime_checkable
class Model(Protocol):
    """What a view is made of."""

    def show(self, batch: Batch) -> Shown:
        """One forward pass."""
        ...

    def rerun(self, batch: Batch, keep: TokenScores) -> Logits:
        """Logits with each token kept in proportion ``keep``."""
        ...


class StandIn:
    """A classifier of float64 tables, smooth in ``keep``.

    It pools two-layer features of the tokens by attention weights ``keep_j exp(a_j)``, so that a
    token kept at 0 is as if it were deleted. Its saliency is a function of a row's own tokens and
    their places, counted from the first.
    """

    def __init__(self, seed: int, kind: Kind = "soft") -> None:
        generator = torch.Generator().manual_seed(seed)

        def table(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.kind = kind
        self.embeddings, self.weights = table(WORDS, WIDTH), 0.5 * table(WORDS)
        self.inner, self.outer = table(WIDTH, WIDTH), 0.8 * table(WIDTH, len(LABELS))
        self.scores, self.states = table(WORDS), table(WIDTH, STATES)

    def show(self, batch: Batch) -> Shown:
        """Logits, a saliency of the kind asked for, and hidden states, loud on padding."""
        visible = batch.attention_mask
        features = self.embeddings[batch.input_ids]
        total = (features * visible[..., None]).sum(1, keepdim=True)
        states = OFFSET + torch.tanh((features + 0.1 * total) @ self.states)
        hidden = states.masked_fill(~visible[..., None], LOUD)
        keep = torch.ones(visible.shape, dtype=torch.float64)
        return Shown(self.rerun(batch, keep), self._saliency(batch), hidden)

    def rerun(self, batch: Batch, keep: TokenScores) -> Logits:
        """Tokens that are not explainable are kept; a row of nothing keeps its first token."""
        keep = torch.where(batch.explainable, keep.double(), 1.0)
        visible = batch.attention_mask
        first = visible & (visible.cumsum(-1) == 1)
        gone = ((keep > 0) & visible).any(-1, keepdim=True).logical_not()
        keep = torch.where(first & gone, 1.0, keep)
        share = keep * self.weights[batch.input_ids].exp() * visible
        share = share / share.sum(-1, keepdim=True)
        pooled = torch.einsum("bl,ble->be", share, self.embeddings[batch.input_ids])
        return torch.tanh(pooled @ self.inner) @ self.outer

    def _saliency(self, batch: Batch) -> Saliency:
        place = batch.attention_mask.cumsum(-1)
        scores = self.scores[batch.input_ids] + 0.37 * torch.sin(place.double())
        if self.kind == "equal":
            scores = torch.zeros_like(scores)
        normalise = masked_sparsemax if self.kind in ("sparse", "one-hot") else masked_softmax
        steepness = {"sparse": 1.5, "one-hot": 1e6}.get(self.kind, 1.0)
        return normalise(steepness * scores, batch.explainable)


class Tiny:
    """A real tiny backbone in float64, with an untrained attention module.

    ``deletes`` says that a rerun deletes the tokens for real, instead of removing them in
    attention.
    """

    def __init__(self, backbone: Backbone, deletes: bool = False) -> None:
        self.backbone = backbone
        self.module = InterpretableAttention(backbone.sizes).double().eval()
        self.deletes = deletes

    @torch.no_grad()
    def show(self, batch: Batch) -> Shown:
        """One forward pass of the backbone."""
        encoding = self.backbone.encode(batch, self.module, hidden=True)
        saliency = self.module(encoding.readings, batch.explainable, encoding.classes)
        assert encoding.hidden is not None
        return Shown(encoding.logits, saliency, encoding.hidden)

    def rerun(self, batch: Batch, keep: TokenScores) -> Logits:
        """Removal in attention, or deletion where ``keep`` is 0."""
        if not self.deletes:
            return self.backbone.rerun(batch, keep, "attention")
        short = []
        for row, item in enumerate(batch.items):
            own = keep[row, batch.attention_mask[row]].tolist()
            pairs = zip(own, item.explainable, strict=True)
            short.append(delete(item, tuple(kept > 0 or not yes for kept, yes in pairs)))
        return self.backbone.encode(make_batch(short, pad=self.backbone.pad_id)).logits


@lru_cache(maxsize=4)
def _loud(name: str) -> Backbone:
    """A tiny model with weights so large that every token matters."""
    backbone = load_backbone(name, LABELS, seed=3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return backbone.double().eval()


def tiny(name: str) -> Backbone:
    """A copy of the tiny model ``name`` in float64; the tokenizer is shared."""
    backbone = _loud(name)
    return copy.deepcopy(backbone, {id(backbone.tokenizer): backbone.tokenizer})


def tiny_student() -> ScaffoldedStudent:
    """A student in float64 that learns from the same two rows at every step."""
    return _student(tiny("tiny-electra"), rate=0.05, beta=5.0)


def calm_student() -> ScaffoldedStudent:
    """The same with weights so small that its gradient is shorter than 1.

    A longer one is shortened, by a factor that the hypergradient takes as a constant: it is not
    the derivative there.
    """
    backbone = tiny("tiny-electra")
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(0.1)
    return _student(backbone, rate=0.5, beta=1.0)


def _student(backbone: Backbone, rate: float, beta: float) -> ScaffoldedStudent:
    module = InterpretableAttention(backbone.sizes, ("head", "layer")).double()
    study = make_batch(make_items([3, 2], 77))
    return ScaffoldedStudent(
        lambda number: (backbone, module),
        lambda number: endless(lambda epoch: iter([study])),
        rate=rate,
        beta=beta,
        life=10**6,
    )
