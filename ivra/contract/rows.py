"""Rows made of numbers: what the contract shows to a criterion."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ivra.data import Batch, Item, Row, collate

PAD, START, END, FIRST, WORDS = 0, 3, 4, 5, 40
"""Ids of padding, of the special tokens, of the first word, and the end (exclusive) of words."""


def make_items(lengths: Sequence[int], seed: int, special: bool = True) -> list[Item]:
    """A row of words for each of ``lengths``, between two special tokens if ``special``.

    Of four rows the second is not annotated, and in the fourth nothing is marked.
    """
    items = []
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        words = torch.randint(FIRST, WORDS, (length,), generator=generator).tolist()
        marks = (torch.rand(length, generator=generator) < 0.5).tolist()
        marks[number % length] = True
        edge = int(special)
        explainable = [False] * edge + [True] * length + [False] * edge
        size = len(explainable)
        blank = [False] * size
        drawn = [False] * edge + marks + [False] * edge
        items.append(
            Item(
                input_ids=[START] * edge + words + [END] * edge,
                token_type_ids=[0] * size,
                explainable=explainable,
                segment=[0 if yes else -1 for yes in explainable],
                word=[(place - edge) // 2 if yes else -1 for place, yes in enumerate(explainable)],
                offsets=[(place, place + 1) for place in range(size)],
                label=number % 2,
                rationale=(drawn, None, drawn, blank)[number % 4],
                row=Row(f"row-{number}", ("text",)),
            )
        )
    return items


def make_batch(
    items: Sequence[Item], *, pad: int = PAD, side: str = "right", extra: int = 0
) -> Batch:
    """``items`` padded to their longest and by ``extra`` columns more.

    No items give a batch of no rows and four columns.
    """
    if items:
        return _widened(collate(items, pad, side), pad, side, extra)
    return pick(collate(make_items([2], 0), pad, side), [])


def pick(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some rows of a batch, in the order given, at the width they have."""
    places = torch.tensor(rows, dtype=torch.long)
    chosen: dict[str, Any] = {
        name: value[places] for name, value in vars(batch).items() if isinstance(value, Tensor)
    }
    return replace(batch, items=tuple(batch.items[row] for row in rows), **chosen)


def marked(item: Item) -> Item:
    """The same row with its second and its third explainable token marked, no other."""
    places = [place for place, yes in enumerate(item.explainable) if yes][1:3]
    return item._replace(rationale=[place in places for place in range(len(item.explainable))])


def unlabelled(batch: Batch) -> Batch:
    """The same rows without labels, and annotated by nobody."""
    return replace(
        batch,
        labels=torch.full_like(batch.labels, -100),
        rationale=torch.zeros_like(batch.rationale),
        annotated=torch.zeros_like(batch.annotated),
        items=tuple(item._replace(label=-100, rationale=None) for item in batch.items),
    )


def _widened(batch: Batch, pad: int, side: str, extra: int) -> Batch:
    fills = {"input_ids": pad, "segment": -1, "word_ids": -1}
    blank = (extra, 0) if side == "left" else (0, extra)
    wider: dict[str, Any] = {
        name: functional.pad(value, blank, value=fills.get(name, 0))
        for name, value in vars(batch).items()
        if isinstance(value, Tensor) and value.dim() == 2 and name != "answers"
    }
    return replace(batch, **wider)
