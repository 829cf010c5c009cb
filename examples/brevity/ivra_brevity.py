"""Brevity: an explanation should name few tokens."""

import torch
from torch import Tensor

from ivra import Criterion, Terms, View


def entropy(saliency: Tensor) -> Tensor:
    """``-sum_j r_j log r_j`` in nats, ``(B, L) -> (B,)``: 0 for one token, ``log n`` for ``n``
    equal ones. Tokens without saliency count 0, with a gradient of 0.
    """
    named = saliency > 0
    safe = torch.where(named, saliency, 1.0)
    return -(saliency * safe.log()).sum(-1)


class Brevity(Criterion):
    """Trains the saliency onto few tokens; the metric is its entropy in nats."""

    name = "brevity"

    def forward(self, view: View) -> Terms:
        return Terms(brevity=entropy(view.saliency))
