"""Rows as captum wants a model: logits as a function of the tokens' embeddings."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.baselines import Baseline, baseline_embeddings
from ivra.shapes import Hidden, Rows


class EmbeddedRows(nn.Module):
    """Rows as captum wants a model: ``forward(embeddings, places)`` gives, of the rows numbered
    ``places`` with other embeddings, the logit of what each is predicted with its own.

    The rows have to be in the model's own order (:meth:`Backbone.head_first`).
    """

    def __init__(self, backbone: Backbone, batch: Batch) -> None:
        super().__init__()
        self.backbone = backbone
        self.batch = batch
        self.places = torch.arange(len(batch), device=batch.input_ids.device)
        with torch.no_grad():
            self.embeddings = backbone.embed(batch.input_ids).requires_grad_()
            self.predictions = backbone.encode(batch).predictions

    def forward(self, embeddings: Tensor, places: Tensor) -> Rows:
        """The logit of each row's prediction, ``(len(places),)``."""
        logits = self.backbone.encode(_some(self.batch, places), embeddings=embeddings).logits
        return self.backbone.task.score(logits, self.predictions[places])

    def baseline(self, baseline: Baseline) -> Hidden:
        """The embeddings of the rows with every explainable token replaced."""
        with torch.no_grad():
            return baseline_embeddings(self.backbone, self.batch, baseline)

    def points_at_once(self, batch_tokens: int, least: int = 1) -> int:
        """How many rows captum may take at once on a path, ``least`` points of each or more."""
        rows, length = self.batch.input_ids.shape
        return max(least * rows, batch_tokens // length)


def attributed(
    backbone: Backbone,
    batch: Batch,
    attribute: Callable[[EmbeddedRows], Tensor],
    rows_at_once: int | None = None,
) -> Tensor:
    """What ``attribute`` finds for ``rows_at_once`` rows after the other, ``(B, L, E)``.

    In the order of ``batch``, and 0 where a token is not explainable.
    """
    moved, back = backbone.head_first(batch)
    size = rows_at_once or len(batch)
    every = torch.arange(len(batch), device=moved.input_ids.device)
    with torch.enable_grad():
        parts = [
            attribute(EmbeddedRows(backbone, _some(moved, places))).detach()
            for places in every.split(size)
        ]
    found = torch.cat(parts)
    if back is not None:
        found = found.gather(1, back[..., None].expand_as(found))
    return found * batch.explainable[..., None]


def rows_within(batch: Batch, batch_tokens: int, copies: int = 1) -> int:
    """How many rows of ``batch`` can go through the model at once, ``copies`` times each."""
    return max(1, batch_tokens // (copies * batch.input_ids.shape[1]))


def _some(batch: Batch, places: Tensor) -> Batch:
    """The rows numbered ``places``."""
    tensors = {name: value[places] for name, value in vars(batch).items() if name != "items"}
    return replace(batch, items=(), **tensors)
