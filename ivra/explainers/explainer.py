"""What every explainer is: one score a token, from a backbone and a batch."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.errors import IvraError
from ivra.shapes import TokenScores

BATCH_TOKENS = 2048
"""Tokens of a batch by default, padding included: what fits a CPU's cache."""


class Explainer(ABC):
    """Gives every token of every row a score; higher means more important.

    Scores may be signed and need not sum to anything; they count on explainable tokens only
    and are 0 elsewhere. ``is_saliency`` says that they are points of the simplex. A row's scores
    may not depend on the other rows of the batch, nor on its padding.

    A subclass sets ``name`` and, for lists, ``summary``. Constructor parameters need defaults;
    the scalar ones are options by name (``lime:samples=100``). Two names mean the same in every
    explainer: ``seed`` is that of whatever it draws, and ``batch_tokens`` how many tokens, padding
    included, may go through the model at once where an explainer makes copies of rows.
    """

    name: str
    summary: str = ""
    is_saliency: bool = False

    @abstractmethod
    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        """Scores ``(B, L)`` of the model's own prediction, without gradient."""

    def check(self, backbone: Backbone) -> None:
        """Raise :class:`IvraError` for a backbone that it cannot explain, before work starts."""
        return None


def check_scores(name: str, scores: object, batch: Batch) -> TokenScores:
    """``scores`` if they are what :meth:`Explainer.explain` promises.

    Raises:
        IvraError: naming the explainer and what is wrong: no tensor of floats, a wrong shape, a
            value that is not finite, or a score on a token that is not explainable.
    """
    shape = tuple(batch.explainable.shape)
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise IvraError(
            f"explainer '{name}' returned {kind}: expected a floating point tensor {shape}"
        )
    if tuple(scores.shape) != shape:
        raise IvraError(
            f"explainer '{name}' returned scores of shape {tuple(scores.shape)}: expected one a "
            f"token, {shape}"
        )
    scores = scores.detach().to(batch.explainable.device)
    for wrong, what, mend in (
        (~torch.isfinite(scores), "a score that is not finite", "expected finite numbers"),
        (
            (scores != 0) & ~batch.explainable,
            "a score on a token that is not explainable",
            "expected 0 wherever batch.explainable is false",
        ),
    ):
        if bool(wrong.any()):
            row, token = wrong.nonzero()[0].tolist()
            raise IvraError(
                f"explainer '{name}' returned {what} ({float(scores[row, token])} at token "
                f"{token} of row {batch.items[row].row.id}): {mend}"
            )
    return scores


def check_place(option: str, index: int, count: int, what: str) -> None:
    """Raise :class:`IvraError` unless ``index`` is one of ``count`` layers or heads, counted from
    0, or from the end below 0."""
    if not -count <= index < count:
        raise IvraError(
            f"{option} is {index}: expected {-count} to {count - 1}, the model has {count} {what}"
        )
