"""Layer conductance, by captum: what a layer's output passes on, token by token."""

from typing import Annotated

from captum import attr as captum
from pydantic import Field
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.baselines import Baseline
from ivra.explainers.embedded import EmbeddedRows, attributed, rows_within
from ivra.explainers.explainer import BATCH_TOKENS, Explainer, check_place
from ivra.explainers.gradients import STEPS
from ivra.shapes import TokenScores


class LayerConductance(Explainer):
    """Conductance of a layer's output (Dhamdhere et al. 2018, arXiv:1805.12233), summed over a
    token's features: ``sum_e int d logit / d h_e * d h_e / d a da``, ``h`` the output of block
    ``layer`` and ``a`` in ``[0, 1]`` the way from ``baseline`` to the row, in ``steps`` steps.

    The first block by default (``layer=0``, negative as in Python): later ones have mixed tokens
    more, and of the last block an encoder's head reads [CLS] alone, which leaves 0 everywhere
    else. All tokens of the row together, special ones too, add up to ``logit(row) -
    logit(baseline)`` up to the error of the steps, so those of explainable tokens need not.
    Signed. A forward and a backward pass a step.
    """

    name = "layer-conductance"
    summary = f"conductance of a layer's output from the masked row, {STEPS} steps (captum)"

    def __init__(
        self,
        layer: int = 0,
        steps: Annotated[int, Field(ge=1)] = STEPS,
        baseline: Baseline = "mask",
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.layer = layer
        self.steps = steps
        self.baseline = baseline
        self.batch_tokens = batch_tokens

    def check(self, backbone: Backbone) -> None:
        check_place("layer-conductance:layer", self.layer, len(backbone.blocks), "layers")

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        self.check(backbone)
        block = backbone.blocks[self.layer]

        def attribute(rows: EmbeddedRows) -> Tensor:
            found = captum.LayerConductance(rows, block).attribute(
                rows.embeddings,
                rows.baseline(self.baseline),
                additional_forward_args=rows.places,
                n_steps=self.steps,
                method="riemann_trapezoid",  # for its points: 0 and 1 are among them
                internal_batch_size=rows.points_at_once(self.batch_tokens, least=2),
            )
            assert isinstance(found, Tensor)
            return found

        at_once = rows_within(batch, self.batch_tokens, copies=2)
        return attributed(backbone, batch, attribute, at_once).sum(-1)
