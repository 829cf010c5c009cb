"""Lead: the earlier a token, the more it counts."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from ivra import Explainer
from ivra.backbones import Backbone
from ivra.data import Batch


def lead(explainable: Tensor, decay: float) -> Tensor:
    """``decay^n`` for the ``n``-th explainable token of a row, counted from 0; 0 on the others.

    ``(B, L) -> (B, L)``.
    """
    place = explainable.cumsum(-1) - 1
    return explainable * decay ** place.clamp_min(0)


class Lead(Explainer):
    """Scores by place alone, in ``(0, 1]``; needs no pass through the model."""

    name = "lead"
    summary = "the earlier a token, the more it counts"

    def __init__(self, decay: Annotated[float, Field(gt=0, lt=1)] = 0.9) -> None:
        self.decay = decay

    def explain(self, backbone: Backbone, batch: Batch) -> Tensor:
        return lead(batch.explainable, self.decay)
