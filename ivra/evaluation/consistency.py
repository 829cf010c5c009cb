"""Consistency of explanations: Spearman between distances of states and of saliencies.

Xie et al. 2024 (IvRA), equations 12 and 18.
"""

import math
from collections.abc import Sequence

import torch

from ivra.backbones import Backbone
from ivra.data import Item, collate
from ivra.evaluation.prediction import token_scores
from ivra.explainers import BATCH_TOKENS, Explainer, to_simplex
from ivra.losses import batch_consistency, hidden_distances, saliency_divergences

BATCH_ROWS = 32


def consistency(
    backbone: Backbone,
    items: Sequence[Item],
    explainers: Sequence[Explainer],
    batch_rows: int = BATCH_ROWS,
) -> dict[str, float | None]:
    """Spearman's rho over the pairs of a batch, averaged over batches, for every explainer.

    In ``[-1, 1]``, higher is better. Rows are batched in their order; a batch in which rho is
    undefined (fewer than 3 rows, constant distances) does not count, and ``None`` is returned if
    none does. Explainers whose scores are no saliency are projected by a softmax.
    """
    found = batch_correlations(backbone, items, explainers, batch_rows)
    return {name: mean_correlation(rhos) for name, rhos in found.items()}


def mean_correlation(rhos: Sequence[float | None]) -> float | None:
    """Mean of the batches that are defined; ``None`` if none is."""
    defined = [rho for rho in rhos if rho is not None]
    return math.fsum(defined) / len(defined) if defined else None


@torch.no_grad()
def batch_correlations(
    backbone: Backbone,
    items: Sequence[Item],
    explainers: Sequence[Explainer],
    batch_rows: int = BATCH_ROWS,
    batch_tokens: int = BATCH_TOKENS,
) -> dict[str, list[float | None]]:
    """Spearman's rho of every batch, for every explainer; ``None`` where it is undefined.

    ``batch_tokens`` bounds what an explainer is given at once and changes no figure.
    """
    found: dict[str, list[float | None]] = {explainer.name: [] for explainer in explainers}
    for start in range(0, len(items), batch_rows):
        batch = collate(items[start : start + batch_rows], backbone.pad_id, backbone.padding_side)
        batch = batch.to(backbone.device)
        hidden = backbone.encode(batch, hidden=True).hidden
        assert hidden is not None
        distances = hidden_distances(hidden, batch.attention_mask)
        for explainer in explainers:
            rows = token_scores(explainer, backbone, batch.items, batch_tokens)
            scores = torch.zeros(batch.attention_mask.shape, device=backbone.device)
            scores[batch.attention_mask] = torch.cat(rows).to(backbone.device)
            if not explainer.is_saliency:
                scores = to_simplex(scores, batch.explainable)
            divergences = saliency_divergences(scores, batch.explainable, batch.attention_mask)
            found[explainer.name].append(batch_consistency(divergences, distances))
    return found
