"""Consistency: rows that the model sees alike should be explained alike.

Xie et al. 2024 (IvRA), equations 13 and 19; metric of equations 12 and 18.
"""

import torch

from ivra.losses.criterion import Criterion, Terms, View
from ivra.losses.divergence import pairwise_kl
from ivra.losses.spearman import spearman
from ivra.shapes import Hidden, Pairs, Rows, Saliency, TokenMask

EPSILON = 1e-8


def from_first_visible(values: torch.Tensor, visible: TokenMask) -> torch.Tensor:
    """``values (B, L, ...)`` with each row's padding moved behind its tokens."""
    order = visible.logical_not().int().argsort(dim=1, stable=True)
    shape = order.shape + (1,) * (values.dim() - 2)
    return values.gather(1, order.view(shape).expand_as(values))


def hidden_distances(hidden: Hidden, visible: TokenMask) -> Pairs:
    """``||H_i - H_j||_2`` at token level: over all positions and features, padding as zeros.

    ``hidden`` is the mean over layers. Positions count from a row's first token. In float32 at
    least: float16 overflows at the square of a long row.
    """
    hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    flat = from_first_visible(hidden * visible[..., None], visible).flatten(1)
    flat = flat - flat.mean(0)  # a shared offset cancels in every difference, not in rounding
    square = flat.square().sum(-1)
    gram = square[:, None] + square[None] - 2 * flat @ flat.T
    same = torch.eye(len(flat), dtype=torch.bool, device=flat.device) | (gram <= 0)
    return torch.where(same, 1.0, gram).sqrt().masked_fill(same, 0)


def saliency_divergences(saliency: Saliency, explainable: TokenMask, visible: TokenMask) -> Pairs:
    """``KL(r_i || r_j)`` in nats of all ordered pairs, positions counted from the first token."""
    aligned = from_first_visible(explainable, visible)
    return pairwise_kl(from_first_visible(saliency, visible), aligned)


def consistency_loss(divergences: Pairs, distances: Pairs) -> Rows:
    """``mean over j != i of KL(r_i || r_j) / (||H_i - H_j||_2 + eps)`` (IvRA eq. 13, 19).

    In nats per unit of distance, at least 0. Pairs at (numerically) no distance are left out,
    for the ratio has no bound there; a row without a partner has loss 0.
    """
    apart = distances > 1e-4 * (distances.mean() + EPSILON)
    ratio = torch.where(apart, divergences / (distances + EPSILON), 0.0)
    return ratio.sum(-1) / apart.sum(-1).clamp_min(1)


def scale_free_consistency_loss(divergences: Pairs, distances: Pairs) -> Rows:
    """:func:`consistency_loss` over its value for divergences that do not depend on the distance.

    ``mean_j [KL_ij / (d_ij + eps)] / (mean KL * mean 1/(d + eps))``, means over all pairs: 1 where
    divergence and distance are unrelated, lower where rows that are far apart are explained more
    differently. Equation 13 alone is least where all explanations are equal (uniform, say); its
    shape without its scale has no such way out. Positive; 1 where all divergences are 0.
    """
    apart = distances > 1e-4 * (distances.mean() + EPSILON)
    count = apart.sum().clamp_min(1)
    divergence = torch.where(apart, divergences, 0.0).sum() / count
    closeness = torch.where(apart, 1 / (distances + EPSILON), 0.0).sum() / count
    ratio = consistency_loss(divergences, distances)
    floor = torch.finfo(ratio.dtype).tiny ** 0.5
    return torch.where(
        divergence > floor,
        ratio / (divergence * closeness).clamp_min(floor),
        torch.ones_like(ratio),
    )


def batch_consistency(divergences: Pairs, distances: Pairs) -> float | None:
    """Spearman's rho between both over the unordered pairs of a batch (IvRA eq. 12, 18).

    The divergence of a pair is the mean of its two directions. ``None`` (undefined) for fewer
    than 3 rows or where either side is constant.
    """
    if len(distances) < 3:
        return None
    upper = torch.ones_like(distances, dtype=torch.bool).triu(1)
    symmetric = (divergences + divergences.T) / 2
    return spearman(symmetric[upper], distances[upper])


class Consistency(Criterion):
    """Pulls the explanations of rows together that are close in the model's hidden states.

    The metric is Spearman's rho of a batch, given to each of its rows (0 where undefined).

    Args:
        scale_free: use :func:`scale_free_consistency_loss` (default), else equation 13 as it
            stands, which by itself teaches the module to explain all rows alike.
    """

    name = "cons"
    better = "higher"
    needs_hidden = True
    pairwise = True

    def __init__(self, scale_free: bool = True) -> None:
        super().__init__()
        self.scale_free = scale_free

    def _pairs(self, view: View) -> tuple[Pairs, Pairs]:
        assert view.hidden is not None
        visible = view.batch.attention_mask
        return (
            saliency_divergences(view.saliency, view.explainable, visible),
            hidden_distances(view.hidden, visible),
        )

    def forward(self, view: View) -> Terms:
        divergences, distances = self._pairs(view)
        loss = scale_free_consistency_loss if self.scale_free else consistency_loss
        return Terms(cons=loss(divergences, distances))

    def metric(self, view: View) -> Rows:
        rho = batch_consistency(*self._pairs(view))
        return view.saliency.new_full((len(view.batch),), 0.0 if rho is None else rho)
