"""Divergences between saliencies, finite also where supports differ."""

import torch

from ivra.shapes import Pairs, Rows, Saliency, TokenMask

MIX = 1e-4
"""Share of uniform mass mixed into both sides, so that sparse saliencies stay comparable."""


def mixed(saliency: Saliency, support: TokenMask) -> Saliency:
    """``(1 - 1e-4) r + 1e-4 uniform`` over ``support``; exact 0 elsewhere.

    Half precision becomes float32: it cannot hold ``1 - 1e-4``.
    """
    saliency = saliency.to(torch.promote_types(saliency.dtype, torch.float32))
    uniform = support.to(saliency) / support.sum(-1, keepdim=True)
    return (1 - MIX) * saliency + MIX * uniform


def kl_divergence(p: Saliency, q: Saliency, explainable: TokenMask) -> Rows:
    """``KL(p || q)`` in nats of each row (IvRA eq. 7), both sides mixed with 1e-4 of uniform.

    At least 0, finite for any two saliencies, 0 iff they are equal.
    """
    p, q = mixed(p, explainable), mixed(q, explainable)
    log_ratio = torch.where(explainable, p, 1.0).log() - torch.where(explainable, q, 1.0).log()
    return (p * log_ratio).sum(-1)


def pairwise_kl(saliency: Saliency, explainable: TokenMask) -> Pairs:
    """``KL(r_i || r_j)`` in nats for every ordered pair of rows, by matrix products.

    Rows are compared position by position. The uniform share of every row is spread over the
    positions at which any row of the batch has an explainable token, so the value does not
    depend on the amount of padding. The diagonal is 0.
    """
    support = explainable.any(0, keepdim=True).expand_as(explainable)
    p = mixed(saliency, support)
    log = torch.where(support, p, 1.0).log()
    divergence = (p * log).sum(-1)[:, None] - p @ log.T
    diagonal = torch.eye(len(p), dtype=torch.bool, device=p.device)
    return divergence.clamp_min(0).masked_fill(diagonal, 0)
