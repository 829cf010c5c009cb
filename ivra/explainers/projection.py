"""From scores to a point of the simplex, where something needs one."""

import torch

from ivra.attention import masked_softmax, masked_sparsemax
from ivra.errors import unknown_name
from ivra.shapes import Saliency, TokenMask, TokenScores

PROJECTIONS = ("softmax", "sparsemax", "positive", "absolute")


def to_simplex(scores: TokenScores, explainable: TokenMask, by: str = "softmax") -> Saliency:
    """``scores`` as a saliency: at least 0, summing to 1 over a row's explainable tokens.

    * ``"softmax"``: ``exp(s_j) / sum_i exp(s_i)``; keeps the order, not the scale.
    * ``"sparsemax"``: the nearest point of the simplex (Martins & Astudillo 2016, eq. 1).
    * ``"positive"``: ``max(s_j, 0) / sum_i max(s_i, 0)``; what speaks against counts nothing.
    * ``"absolute"``: ``|s_j| / sum_i |s_i|``; what speaks against counts like what speaks for.

    The last two keep the scale, and are uniform over a row's explainable tokens where nothing is
    left to share. Exactly 0 on other tokens, whatever stands there; all 0 in a row without an
    explainable token.

    Raises:
        IvraError: no such projection; the choices are listed.
    """
    if by == "softmax":
        return masked_softmax(scores, explainable)
    if by == "sparsemax":
        return masked_sparsemax(scores, explainable)
    if by not in ("positive", "absolute"):
        raise unknown_name("projection", by, list(PROJECTIONS))
    parts = scores.abs() if by == "absolute" else scores.clamp_min(0)
    parts = torch.where(explainable, parts, 0.0)
    empty = parts.sum(-1, keepdim=True) == 0
    parts = torch.where(empty, explainable.to(parts), parts)
    parts = parts / parts.amax(-1, keepdim=True).clamp_min(torch.finfo(parts.dtype).tiny)
    return parts / parts.sum(-1, keepdim=True).clamp_min(torch.finfo(parts.dtype).tiny)
