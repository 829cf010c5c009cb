"""Consistency of explanations: Spearman between distances of states and of saliencies.

Xie et al. 2024 (IvRA), equations 12 and 18.
"""

from collections.abc import Sequence

import torch

from ivra.attention import masked_softmax
from ivra.backbones import Backbone
from ivra.data import Item, collate
from ivra.explainers import Explainer
from ivra.losses import batch_consistency, hidden_distances, saliency_divergences

BATCH_ROWS = 32


@torch.no_grad()
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
    found: dict[str, list[float]] = {explainer.name: [] for explainer in explainers}
    for start in range(0, len(items), batch_rows):
        batch = collate(items[start : start + batch_rows], backbone.pad_id, backbone.padding_side)
        batch = batch.to(backbone.device)
        hidden = backbone.encode(batch, hidden=True).hidden
        assert hidden is not None
        distances = hidden_distances(hidden, batch.attention_mask)
        for explainer in explainers:
            scores = explainer.explain(backbone, batch)
            if not explainer.is_saliency:
                scores = masked_softmax(scores, batch.explainable)
            divergences = saliency_divergences(scores, batch.explainable, batch.attention_mask)
            rho = batch_consistency(divergences, distances)
            if rho is not None:
                found[explainer.name].append(rho)
    return {name: sum(rhos) / len(rhos) if rhos else None for name, rhos in found.items()}
