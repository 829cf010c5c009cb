"""Batches and views made by hand, without any model."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ivra.data import Batch, Item, Row, collate
from ivra.losses import View


def _batch(lengths: Sequence[int], side: str = "right") -> Batch:
    """Rows of a special token at each end and ``length`` explainable ones between."""
    items = []
    for number, length in enumerate(lengths):
        inner = [False] + [True] * length + [False]
        items.append(
            Item(
                input_ids=list(range(1, length + 3)),
                token_type_ids=[0] * (length + 2),
                explainable=inner,
                segment=[0 if flag else -1 for flag in inner],
                word=[place - 1 if flag else -1 for place, flag in enumerate(inner)],
                offsets=[(0, 1)] * (length + 2),
                label=number % 2,
                rationale=None,
                row=Row(f"row-{number}", ("text",)),
            )
        )
    return collate(items, 0, side)


@pytest.fixture(scope="session")
def batch() -> Callable[..., Batch]:
    """Builds a batch of rows with the given numbers of explainable tokens."""
    return _batch


def _evidence_view(batch: Batch, evidence: Tensor, saliency: Tensor) -> View:
    """A two-class model whose logits are 0 and the evidence of the tokens kept.

    As in a backbone, tokens that are not explainable are always kept.
    """

    def rerun(keep: Tensor) -> Tensor:
        total = (torch.where(batch.explainable, keep, 1.0) * evidence).sum(-1)
        return torch.stack([torch.zeros_like(total), total], dim=-1)

    def on(other: Batch) -> View:
        raise AssertionError("no other rows are asked for")

    logits = rerun(torch.ones_like(saliency))
    return View(batch, logits, saliency, None, rerun, on)


@pytest.fixture(scope="session")
def evidence_view() -> Callable[[Batch, Tensor, Tensor], View]:
    """A view of a model that adds up evidence a token."""
    return _evidence_view
