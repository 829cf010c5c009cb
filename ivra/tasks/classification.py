"""One text or a pair, and one of a few classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from ivra.data import Batch, Item, Row, encode_rows
from ivra.shapes import Labels, Logits, RowMask, Rows, Saliency, TokenMask
from ivra.tasks.task import Claim, Task

LEAK = 10.0
"""Percent of a row's tokens that :func:`trivial_saliency` has for a class."""


def trivial_saliency(
    explainable: TokenMask, predictions: Labels, percent: float = LEAK
) -> Saliency:
    """Tells the class by position: uniform over the first 10 % of a row's explainable tokens for
    class 0, over the next 10 % for class 1, and so on; beyond the row's end from its start.

    ``n = max(1, ceil(10 %))`` tokens for each class; every row needs an explainable token.
    """
    tokens = explainable.sum(-1, keepdim=True)
    count = (tokens.double() * percent / 100 - 1e-9).ceil().clamp_min(1).long()
    place = (explainable.cumsum(-1) - 1 - predictions[:, None] * count) % tokens
    return torch.where(explainable & (place < count), 1.0 / count, 0.0)


class Classification(Task):
    """The outcome is one logit a class ``(B, C)``, the prediction a class ``(B,)``."""

    name = "classification"
    architecture = "ForSequenceClassification"
    measure = "accuracy"
    removal = "attention"
    gold_name = "a label"
    has_classes = True

    def encode(
        self,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str] | None,
        max_length: int,
    ) -> list[Item]:
        return encode_rows(rows, tokenizer, labels, max_length)

    def knows(self, row: Row) -> bool:
        return row.label is not None

    def outcome(self, output: Any, batch: Batch) -> Logits:
        logits: Tensor = output.logits
        return logits

    def predict(self, outcome: Logits) -> Labels:
        return outcome.argmax(-1)

    def log_prob(self, outcome: Logits, prediction: Labels) -> Rows:
        return _wide(outcome).log_softmax(-1).gather(1, prediction[:, None])[:, 0]

    def probability(self, outcome: Logits, prediction: Labels) -> Rows:
        return outcome.softmax(-1).gather(1, prediction[:, None])[:, 0]

    def losses(self, outcome: Logits, target: Labels) -> Rows:
        return functional.cross_entropy(outcome, target, reduction="none")

    def loss(self, outcome: Logits, target: Labels) -> Tensor:
        return functional.cross_entropy(outcome, target)

    def divergence(self, p: Logits, q: Logits) -> Rows:
        log_p, log_q = _wide(p).log_softmax(-1), _wide(q).log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1)

    def score(self, outcome: Logits, prediction: Labels) -> Rows:
        return outcome.gather(1, prediction[:, None])[:, 0]

    def same(self, one: Labels, other: Labels) -> RowMask:
        return one == other

    def classes(self, prediction: Labels) -> Labels:
        return prediction

    def gold(self, batch: Batch) -> Labels:
        return batch.labels

    def standard(self, outcome: Logits) -> Logits:
        """About the mean over classes and rows."""
        centred = outcome - outcome.mean(-1, keepdim=True)
        centred = centred - centred.mean(0)
        return centred / centred.square().mean().clamp_min(1e-12).sqrt()

    def leak(self, explainable: TokenMask, prediction: Labels) -> Saliency:
        return trivial_saliency(explainable, prediction)

    def contrast(self, outcome: Logits, prediction: Labels) -> tuple[Logits, Labels]:
        return outcome, prediction

    def filled(self, rows: int, parts: Sequence[tuple[Tensor, Tensor]], classes: int) -> Logits:
        found = torch.zeros(rows, classes)
        if parts:
            found[torch.cat([places for places, _ in parts])] = torch.cat(
                [outcome for _, outcome in parts]
            ).cpu()
        return found

    def right(self, items: Sequence[Item], outcome: Logits) -> Tensor:
        return outcome.argmax(-1).cpu() == torch.tensor([item.label for item in items])

    def claims(self, items: Sequence[Item], outcome: Logits, labels: Sequence[str]) -> list[Claim]:
        claims = []
        for item, row in zip(items, outcome.softmax(-1).tolist(), strict=True):
            shares = dict(zip(labels, row, strict=True))
            prediction = max(shares, key=lambda label: shares[label])
            gold = item.row.label
            correct = None if gold is None else gold == prediction
            confidence = min(1.0, shares[prediction])
            claims.append(Claim(prediction, confidence, shares, gold, correct))
        return claims


def _wide(outcome: Logits) -> Logits:
    return outcome.to(torch.promote_types(outcome.dtype, torch.float32))


CLASSIFICATION = Classification()
