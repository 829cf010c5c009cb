"""The cut at the k percent most salient tokens, and a gradient through it."""

import torch

from ivra.errors import unknown_name
from ivra.shapes import Saliency, TokenMask, TokenScores

TOPK_GRADIENTS = ("straight-through", "sigmoid")


def top_k(saliency: TokenScores, explainable: TokenMask, percent: float) -> TokenMask:
    """True at the ``n = max(1, ceil(percent% of explainable tokens))`` highest scores of a row.

    Ties go to the earlier token. A row with no explainable token has no true entry.
    """
    count = explainable.sum(-1, keepdim=True)
    wanted = (count.double() * percent / 100 - 1e-9).ceil().clamp_min(1).minimum(count)
    order = saliency.masked_fill(~explainable, -torch.inf).argsort(
        dim=-1, descending=True, stable=True
    )
    return (order.argsort(dim=-1) < wanted) & explainable


def soft_top_k(
    saliency: Saliency,
    explainable: TokenMask,
    percent: float,
    gradient: str = "straight-through",
    temperature: float = 1.0,
) -> TokenScores:
    """The 0/1 cut of :func:`top_k` whose gradient passes to the saliency.

    The value is always the hard cut; ``gradient`` says what it is differentiated as:

    * ``"straight-through"``: ``d keep_j / d r_j = 1``, as if the cut were ``r`` itself.
    * ``"sigmoid"``: as if it were ``sigmoid((log r_j - log t) / temperature)`` with ``t`` halfway
      (in logarithm) between the last token inside the cut and the first outside: largest at the
      cut, independent of the scale of ``r``.

    Raises:
        IvraError: unknown ``gradient``.
    """
    if gradient not in TOPK_GRADIENTS:
        raise unknown_name("top-k gradient", gradient, list(TOPK_GRADIENTS))
    inside = top_k(saliency, explainable, percent)
    hard = inside.to(saliency)
    if gradient == "straight-through":
        return hard + (saliency - saliency.detach())
    floor = torch.finfo(saliency.dtype).tiny ** 0.5
    log = saliency.clamp_min(floor).log()
    last = log.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
    outside = explainable & ~inside
    first = log.masked_fill(~outside, -torch.inf).amax(-1, keepdim=True)
    first = torch.where(outside.any(-1, keepdim=True), first, last)
    threshold = ((last + first) / 2).detach().nan_to_num(0.0, 0.0, 0.0)
    soft = torch.sigmoid((log - threshold) / temperature) * explainable
    return hard + (soft - soft.detach())
