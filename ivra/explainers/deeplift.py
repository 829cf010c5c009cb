"""DeepLIFT, by captum: differences from a baseline passed back through the activations."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum import attr as captum
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, nonlinear
from torch import Tensor, nn
from transformers.activations import ACT2CLS

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.errors import IvraError
from ivra.explainers.baselines import Baseline
from ivra.explainers.embedded import EmbeddedRows, attributed, rows_within
from ivra.explainers.explainer import BATCH_TOKENS, Explainer
from ivra.shapes import TokenScores

LEAST_DIFFERENCE = 1e-4
"""Inputs of an activation that differ by less count as equal, and its derivative is used: in
single precision a quotient of smaller differences is rounding."""
_USED_TWICE = "being used more than once"


def _activations() -> set[type[nn.Module]]:
    """Every activation that transformers knows by name and captum does not."""
    kinds: set[type[nn.Module]] = {nn.GELU}
    named: list[Any] = list(ACT2CLS.values())
    kinds.update(kind[0] if isinstance(kind, tuple) else kind for kind in named)
    return kinds - set(SUPPORTED_NON_LINEAR)


@contextmanager
def _rescaled(model: nn.Module) -> Iterator[None]:
    """Let captum apply the Rescale rule to the activations of transformers too.

    It would pass over them without a word. What it leaves on modules is taken off at the end.
    """
    added = _activations()
    SUPPORTED_NON_LINEAR.update(dict.fromkeys(added, nonlinear))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)
            yield
    finally:
        for module in model.modules():
            if type(module) in SUPPORTED_NON_LINEAR:
                vars(module).pop("input", None)
                vars(module).pop("output", None)
        for kind in added:
            SUPPORTED_NON_LINEAR.pop(kind)


class DeepLIFT(Explainer):
    """DeepLIFT with the Rescale rule (Shrikumar et al. 2017, arXiv:1704.02685) of the predicted
    class's logit: ``sum_e (x_e - b_e) * m_e`` over a token's embedding, ``b`` the baseline's.

    The multiplier ``m`` is a gradient in which the slope of every activation that is a module of
    the model (GELU, SiLU, tanh, ...) is ``(f(x) - f(b)) / (x - b)``. For all else - the softmax of
    attention, products of two activations (query by key, weight by value, gated feed-forward
    parts), layer normalisation, activations that the model calls as functions - it is the plain
    gradient at the row, as in captum. So the scores of a row add up to ``logit(row) -
    logit(baseline)`` where activations are the only thing that is not linear, and in a whole
    transformer they do not. Signed. One forward and one backward pass of row and baseline.
    """

    name = "deeplift"
    summary = "DeepLIFT, Rescale rule at activations, from the masked row (captum)"

    def __init__(self, baseline: Baseline = "mask", batch_tokens: int = BATCH_TOKENS) -> None:
        self.baseline = baseline
        self.batch_tokens = batch_tokens

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        def attribute(rows: EmbeddedRows) -> Tensor:
            found: Tensor = captum.DeepLift(rows, eps=LEAST_DIFFERENCE).attribute(
                rows.embeddings,
                rows.baseline(self.baseline),
                additional_forward_args=rows.places,
            )
            return found

        at_once = rows_within(batch, self.batch_tokens, copies=2)
        try:
            with _rescaled(backbone):
                return attributed(backbone, batch, attribute, at_once).sum(-1)
        except RuntimeError as error:
            if _USED_TWICE not in str(error):
                raise
            raise IvraError(
                f"deeplift cannot explain {backbone.source}: expected a model that uses each "
                "activation module once, this one shares them between layers; choose "
                "integrated-gradients"
            ) from error
