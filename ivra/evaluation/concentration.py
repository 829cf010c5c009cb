"""How concentrated a saliency is: entropy and size of its support. No paper calls it better."""

import torch

from ivra.shapes import Rows, Saliency, TokenMask


def saliency_entropy(saliency: Saliency, explainable: TokenMask) -> Rows:
    """``H(r) = - sum_j r_j ln r_j`` in nats (Shannon 1948), with ``0 ln 0 = 0``.

    In ``[0, ln N]``, ``N`` the explainable tokens of the row: 0 for one token, ``ln N`` for
    uniform. ``exp(H)`` is the number of tokens of a uniform saliency of the same entropy.
    """
    inside = torch.where(explainable, saliency, 0.0)
    return torch.special.entr(inside).sum(-1).clamp_min(0)


def normalised_entropy(saliency: Saliency, explainable: TokenMask) -> Rows:
    """``H(r) / ln N`` in ``[0, 1]``; nan (undefined) in a row of one explainable token."""
    tokens = explainable.sum(-1).to(saliency)
    share = saliency_entropy(saliency, explainable) / tokens.log()
    return torch.where(tokens > 1, share.clamp_max(1.0), torch.nan)


def support_size(saliency: Saliency, explainable: TokenMask) -> Rows:
    """Explainable tokens of saliency above 0, a whole number from 1 to ``N``.

    All of them under a softmax (unless it underflows); fewer under sparsemax and entmax.
    """
    return ((saliency > 0) & explainable).sum(-1).to(saliency)
