"""Gradient attributions, by captum: what the logit of the prediction owes to every embedding.

Of a class its logit, of an answer its start and its end logit together.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import Rows, TokenScores

STEPS = 50
"""Points from the baseline to the row that Integrated Gradients looks at (captum's default)."""

Score = Callable[[Tensor, Tensor], Rows]
Attribute = Callable[[Score, Batch, Tensor], Tensor]


def _attributed(backbone: Backbone, batch: Batch, attribute: Attribute) -> Tensor:
    """What ``attribute(score, batch, rows)`` gives, ``(B, L, E)``, 0 where a token is not
    explainable. ``score(ids, rows)`` is the logit of what is predicted for the rows, given the ids
    in the place of the rows' own."""
    moved, back = backbone.head_first(batch)

    def score(ids: Tensor, rows: Tensor) -> Rows:
        return backbone.task.score(
            backbone.encode(_rows_with(moved, ids, rows)).logits, predictions[rows]
        )

    rows = torch.arange(len(batch), device=moved.input_ids.device)
    with torch.no_grad():
        predictions = backbone.encode(moved).predictions
    with torch.enable_grad():
        found = attribute(score, moved, rows).detach()
    if back is not None:
        found = found.gather(1, back[..., None].expand_as(found))
    return found * batch.explainable[..., None]


def _rows_with(batch: Batch, ids: Tensor, rows: Tensor) -> Batch:
    """The rows numbered ``rows``, with other ids."""
    tensors = {name: value[rows] for name, value in vars(batch).items() if name != "items"}
    return replace(batch, items=(), **{**tensors, "input_ids": ids})


class InputXGradient(Explainer):
    """``sum_e x_e * d logit / d x_e`` over a token's embedding ``x``, for the predicted class.

    Signed. Zero is the implied baseline.
    """

    name = "input-x-gradient"
    summary = "Input x Gradient of the predicted class's logit (captum)"

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        return _attributed(
            backbone,
            batch,
            lambda score, own, rows: LayerGradientXActivation(score, backbone.embeddings).attribute(
                own.input_ids, additional_forward_args=rows
            ),
        ).sum(-1)


class GradientNorm(Explainer):
    """``|| d logit / d x ||_2`` over a token's embedding ``x``, for the predicted class.

    At least 0: how sensitive the model is, not in which direction (Simonyan et al. 2014,
    arXiv:1312.6034, with the norm of Atanasova et al. 2020, arXiv:2009.13295).
    """

    name = "gradient-norm"
    summary = "L2 norm of the predicted class's gradient in the embedding (captum)"

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        return _attributed(
            backbone,
            batch,
            lambda score, own, rows: LayerGradientXActivation(
                score, backbone.embeddings, multiply_by_inputs=False
            ).attribute(own.input_ids, additional_forward_args=rows),
        ).norm(dim=-1)


class IntegratedGradients(Explainer):
    """Integrated Gradients of the predicted class's logit (Sundararajan et al. 2017,
    arXiv:1703.01365), summed over a token's embedding.

    The baseline is the row with every explainable token replaced by the mask token (by padding
    where the tokenizer has none). The scores of a row add up to ``logit(row) - logit(baseline)``,
    up to the error of ``steps`` points (Gauss-Legendre). Signed. A forward and a backward pass
    a point; ``rows_at_once`` bounds the memory.
    """

    name = "integrated-gradients"
    summary = f"Integrated Gradients from the masked row, {STEPS} steps (captum)"

    def __init__(self, steps: int = STEPS, rows_at_once: int = 64) -> None:
        self.steps = steps
        self.rows_at_once = rows_at_once

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        reference = backbone.tokenizer.mask_token_id
        reference = backbone.pad_id if reference is None else reference

        def attribute(score: Score, own: Batch, rows: Tensor) -> Tensor:
            blank = own.input_ids.masked_fill(own.explainable, reference)
            found: Tensor = LayerIntegratedGradients(score, backbone.embeddings).attribute(
                own.input_ids,
                blank,
                additional_forward_args=rows,
                n_steps=self.steps,
                internal_batch_size=max(self.rows_at_once, len(rows)),
            )
            return found

        return _attributed(backbone, batch, attribute).sum(-1)
