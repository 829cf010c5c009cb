"""Predictions of many rows at once, packed by length under a token budget."""

from collections.abc import Iterator, Sequence

import torch

from ivra.backbones import Backbone
from ivra.data import Item, collate
from ivra.explainers import Explainer
from ivra.shapes import Logits

TOKEN_BUDGET = 4096


def packed(items: Sequence[Item], budget: int = TOKEN_BUDGET) -> Iterator[list[int]]:
    """Indices of ``items`` in groups of like length: rows x longest is at most ``budget``.

    Longest first, so that the largest batch comes first; every group has at least one row.
    """
    order = sorted(range(len(items)), key=lambda i: -len(items[i].input_ids))
    start = 0
    while start < len(order):
        size = max(1, budget // len(items[order[start]].input_ids))
        yield order[start : start + size]
        start += size


@torch.no_grad()
def predict(backbone: Backbone, items: Sequence[Item], budget: int = TOKEN_BUDGET) -> Logits:
    """Logits ``(rows, C)`` on the CPU, in the order of ``items``."""
    logits = torch.zeros(len(items), backbone.sizes.classes)
    for group in packed(items, budget):
        batch = collate([items[i] for i in group], backbone.pad_id, backbone.padding_side)
        logits[group] = backbone.encode(batch.to(backbone.device)).logits.float().cpu()
    return logits


def token_scores(
    explainer: Explainer, backbone: Backbone, items: Sequence[Item], budget: int = TOKEN_BUDGET
) -> list[torch.Tensor]:
    """Each row's scores without padding, ``(L_i,)``, in the order of ``items``."""
    found: dict[int, torch.Tensor] = {}
    for group in packed(items, budget):
        batch = collate([items[i] for i in group], backbone.pad_id, backbone.padding_side)
        batch = batch.to(backbone.device)
        scores = explainer.explain(backbone, batch)
        for row, index in enumerate(group):
            found[index] = scores[row, batch.attention_mask[row]].float().cpu()
    return [found[index] for index in range(len(items))]
