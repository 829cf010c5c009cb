"""Consistency: rows that the model sees alike should be explained alike.

Xie et al. 2024 (IvRA), equations 13, 19 and 20; metric of equations 12 and 18.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from ivra.losses.criterion import Criterion, Terms, View
from ivra.losses.divergence import (
    Divergence,
    pairwise_fenchel_young,
    pairwise_js,
    pairwise_kl,
    squared_distances,
)
from ivra.losses.spearman import spearman
from ivra.shapes import Hidden, Labels, Pairs, Rows, Saliency, TokenMask

EPSILON = 1e-8

ConsistencyForm = Literal["scale-free", "ratio", "clustering"]
Distance = Literal["l2", "l1"]
Scope = Literal["batch", "global"]


def from_first_visible(values: torch.Tensor, visible: TokenMask) -> torch.Tensor:
    """``values (B, L, ...)`` with each row's padding moved behind its tokens."""
    order = visible.logical_not().int().argsort(dim=1, stable=True)
    shape = order.shape + (1,) * (values.dim() - 2)
    return values.gather(1, order.view(shape).expand_as(values))


def hidden_distances(hidden: Hidden, visible: TokenMask, distance: Distance = "l2") -> Pairs:
    """``||H_i - H_j||`` at token level: over all positions and features, padding as zeros.

    ``distance`` is ``"l2"`` (the root of the sum of squares) or ``"l1"`` (the sum of absolute
    differences, the paper's option). ``hidden`` is the mean over layers. Positions count from a
    row's first token. Symmetric, 0 on the diagonal. Half precision is computed in float32.
    """
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    flat = from_first_visible(wide.masked_fill(~visible[..., None], 0), visible).flatten(1)
    if distance == "l1":
        return torch.cdist(flat, flat, p=1)
    square = squared_distances(flat)
    return torch.where(square > 0, square, 1.0).sqrt().masked_fill(square == 0, 0)


def saliency_divergences(
    saliency: Saliency,
    explainable: TokenMask,
    visible: TokenMask,
    divergence: Divergence = "kl",
    normaliser: str = "softmax",
) -> Pairs:
    """``D(r_i, r_j)`` of all ordered pairs, positions counted from the first token.

    ``divergence`` is ``"kl"`` (:func:`~ivra.losses.pairwise_kl`), ``"js"``
    (:func:`~ivra.losses.pairwise_js`) or ``"fenchel-young"``
    (:func:`~ivra.losses.pairwise_fenchel_young` of ``normaliser``). At least 0, diagonal 0. Half
    precision is computed in float32.
    """
    wide = saliency.to(torch.promote_types(saliency.dtype, torch.float32))
    aligned = from_first_visible(wide, visible)
    support = from_first_visible(explainable, visible)
    if divergence == "js":
        return pairwise_js(aligned)
    if divergence == "fenchel-young":
        return pairwise_fenchel_young(aligned, support, normaliser)
    return pairwise_kl(aligned, support)


def consistency_loss(divergences: Pairs, distances: Pairs) -> Rows:
    """``mean over j != i of D(r_i, r_j) / (||H_i - H_j|| + eps)`` (IvRA eq. 13, 19).

    In units of the divergence (nats, with KL) per unit of distance, at least 0. Pairs at
    (numerically) no distance are left out, for the ratio has no bound there; a row without a
    partner has loss 0.
    """
    apart = distances > 1e-4 * (distances.mean() + EPSILON)
    ratio = torch.where(apart, divergences / (distances + EPSILON), 0.0)
    return ratio.sum(-1) / apart.sum(-1).clamp_min(1)


def scale_free_consistency_loss(divergences: Pairs, distances: Pairs) -> Rows:
    """:func:`consistency_loss` over its value for divergences that do not depend on the distance.

    ``mean_j [D_ij / (d_ij + eps)] / (mean D * mean 1/(d + eps))``, means over all pairs: 1 where
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


def clustering_loss(distances: Pairs, classes: Labels) -> Rows:
    """``min of d_ij over the others of i's class - max of d_ij over other classes`` (IvRA eq. 20).

    With ``d_ij = ||r_i - r_j||^2``, ``distances``: in ``[-2, 2]`` for saliencies, lower where rows
    of one class are explained alike and rows of two classes differently. The sign is ours: the
    paper's would push the rows of a class apart. Where a row has no partner of its class, or none
    of another, that side counts as 0.
    """
    if len(distances) == 0:
        return distances.sum(-1)
    same = classes[:, None] == classes[None]
    other = ~same
    same = same & ~torch.eye(len(classes), dtype=torch.bool, device=classes.device)
    nearest = torch.where(same, distances, torch.inf).amin(-1)
    farthest = torch.where(other, distances, -torch.inf).amax(-1)
    zero = torch.zeros_like(nearest)
    return torch.where(same.any(-1), nearest, zero) - torch.where(other.any(-1), farthest, zero)


class _Rows(NamedTuple):
    """What pairs are made of, every row counted from its first token; ``start`` of the own ones."""

    saliency: Tensor
    explainable: TokenMask
    visible: TokenMask
    hidden: Tensor | None
    predictions: Tensor
    start: int

    @classmethod
    def of(cls, view: View, hidden: bool, everyone: bool) -> "_Rows":
        visible = view.batch.attention_mask
        wide = torch.promote_types(view.saliency.dtype, torch.float32)
        aligned = [view.saliency.to(wide), view.explainable, visible]
        found = [from_first_visible(each, visible) for each in aligned]
        states = None
        if hidden:
            assert view.hidden is not None
            blank = view.hidden.masked_fill(~visible[..., None], 0)
            states = from_first_visible(blank, visible)
        predictions, start = view.predictions, 0
        if everyone:
            found = [view.gather(each)[0] for each in found]
            states = None if states is None else view.gather(states)[0]
            shared, start = view.gather(predictions[:, None])
            predictions = shared[:, 0]
        saliency, explainable, seen = found
        return cls(saliency, explainable, seen, states, predictions, start)


class Consistency(Criterion):
    """Pulls the explanations of rows together that are close in the model's hidden states.

    The metric is Spearman's rho of a batch between the KL of saliencies and the L2 distance of
    hidden states, whatever the loss is made of; each row of the batch gets it (NaN where it is
    undefined).

    Args:
        form: ``"scale-free"`` (default) is :func:`scale_free_consistency_loss`; ``"ratio"``
            equation 13 as it stands, :func:`consistency_loss`, which by itself teaches the module
            to explain all rows alike; ``"clustering"`` equation 20, :func:`clustering_loss` with
            the classes ``y_hat``, which looks at no hidden states.
        divergence: of two saliencies, see :func:`saliency_divergences`.
        distance: of two rows of hidden states, see :func:`hidden_distances`.
        scope: of several processes that train together, ``"batch"`` compares the rows of each with
            one another, ``"global"`` those of all; the gradient is that of the loss of all rows.
        normaliser: what gave the saliencies, for the divergence ``"fenchel-young"``.
    """

    name = "cons"
    better = "higher"
    needs_hidden = True
    pairwise = True
    needs_classes: ClassVar[Mapping[str, object]] = {"form": "clustering"}

    def __init__(
        self,
        form: ConsistencyForm = "scale-free",
        divergence: Divergence = "kl",
        distance: Distance = "l2",
        scope: Scope = "batch",
        *,
        normaliser: str = "softmax",
    ) -> None:
        super().__init__()
        self.form = form
        self.divergence = divergence
        self.distance = distance
        self.scope = scope
        self.normaliser = normaliser

    def forward(self, view: View) -> Terms:
        rows = _Rows.of(view, self.form != "clustering", self.scope == "global")
        loss = self._loss(rows)
        count = len(view.batch)
        if len(loss) == count:
            return Terms(cons=loss)
        own = loss[rows.start : rows.start + count].detach()
        total = loss.sum() / count
        return Terms(cons=own + total - total.detach())

    def _loss(self, rows: "_Rows") -> Rows:
        if self.form == "clustering":
            return clustering_loss(squared_distances(rows.saliency), rows.predictions)
        assert rows.hidden is not None
        divergences = saliency_divergences(
            rows.saliency, rows.explainable, rows.visible, self.divergence, self.normaliser
        )
        distances = hidden_distances(rows.hidden, rows.visible, self.distance)
        loss = consistency_loss if self.form == "ratio" else scale_free_consistency_loss
        return loss(divergences, distances)

    def metric(self, view: View) -> Rows:
        assert view.hidden is not None
        visible = view.batch.attention_mask
        rho = batch_consistency(
            saliency_divergences(view.saliency, view.explainable, visible),
            hidden_distances(view.hidden, visible),
        )
        return view.saliency.new_full((len(view.batch),), float("nan") if rho is None else rho)
