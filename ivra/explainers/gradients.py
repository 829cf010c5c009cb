"""Gradient attributions, by captum: what the logit of the prediction owes to every embedding.

Of a class its logit, of an answer its start and its end logit together.
"""

from typing import Annotated

from captum import attr as captum
from pydantic import Field
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.baselines import Baseline
from ivra.explainers.embedded import EmbeddedRows, attributed, rows_within
from ivra.explainers.explainer import BATCH_TOKENS, Explainer
from ivra.shapes import TokenScores

STEPS = 50
"""Points from the baseline to the row that Integrated Gradients looks at (captum's default)."""


def _slopes(backbone: Backbone, batch: Batch, multiplied: bool) -> Tensor:
    """``d logit / d x`` of the prediction, ``(B, L, E)``, or ``x`` times that."""

    def attribute(rows: EmbeddedRows) -> Tensor:
        found: Tensor
        if multiplied:
            found = captum.InputXGradient(rows).attribute(
                rows.embeddings, additional_forward_args=rows.places
            )
        else:
            found = captum.Saliency(rows).attribute(
                rows.embeddings, abs=False, additional_forward_args=rows.places
            )
        return found

    return attributed(backbone, batch, attribute)


class InputXGradient(Explainer):
    """``sum_e x_e * d logit / d x_e`` over a token's embedding ``x``, for the predicted class.

    Signed. Zero is the implied baseline.
    """

    name = "input-x-gradient"
    summary = "Input x Gradient of the predicted class's logit (captum)"

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        return _slopes(backbone, batch, multiplied=True).sum(-1)


class GradientNorm(Explainer):
    """``|| d logit / d x ||_2`` over a token's embedding ``x``, for the predicted class.

    At least 0: how sensitive the model is, not in which direction (Simonyan et al. 2014,
    arXiv:1312.6034, with the norm of Atanasova et al. 2020, arXiv:2009.13295).
    """

    name = "gradient-norm"
    summary = "L2 norm of the predicted class's gradient in the embedding (captum)"

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        return _slopes(backbone, batch, multiplied=False).norm(dim=-1)


class IntegratedGradients(Explainer):
    """Integrated Gradients of the predicted class's logit (Sundararajan et al. 2017,
    arXiv:1703.01365), summed over a token's embedding.

    The path runs from the row with every explainable token replaced by ``baseline``. The scores
    of a row add up to ``logit(row) - logit(baseline)``, up to the error of ``steps`` points
    (Gauss-Legendre). Signed. A forward and a backward pass a point.
    """

    name = "integrated-gradients"
    summary = f"Integrated Gradients from the masked row, {STEPS} steps (captum)"

    def __init__(
        self,
        steps: Annotated[int, Field(ge=1)] = STEPS,
        baseline: Baseline = "mask",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.steps = steps
        self.baseline = baseline
        self.batch_tokens = batch_tokens

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        def attribute(rows: EmbeddedRows) -> Tensor:
            found: Tensor = captum.IntegratedGradients(rows).attribute(
                rows.embeddings,
                rows.baseline(self.baseline),
                additional_forward_args=rows.places,
                n_steps=self.steps,
                internal_batch_size=rows.points_at_once(self.batch_tokens),
            )
            return found

        at_once = rows_within(batch, self.batch_tokens)
        return attributed(backbone, batch, attribute, at_once).sum(-1)
