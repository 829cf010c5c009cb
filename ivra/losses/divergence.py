"""Divergences between saliencies, finite also where supports differ."""

from collections.abc import Callable
from typing import Literal, get_args

import torch

from ivra.errors import IvraError, unknown_name
from ivra.shapes import Pairs, Rows, Saliency, TokenMask, TokenScores

MIX = 1e-4
"""Share of uniform mass mixed into both sides, so that sparse saliencies stay comparable."""

Divergence = Literal["kl", "js", "fenchel-young"]
DIVERGENCES: tuple[str, ...] = get_args(Divergence)
RowDivergence = Callable[[Saliency, Saliency, TokenMask], Rows]
"""How far two saliencies of the same rows are apart, given the explainable tokens; see
:func:`row_divergence`."""


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


def js_divergence(p: Saliency, q: Saliency) -> Rows:
    """Jensen-Shannon divergence in nats of each row, see :func:`pairwise_js`."""
    middle = _negative_entropy((p + q) / 2)
    return ((_negative_entropy(p) + _negative_entropy(q)) / 2 - middle).clamp_min(0)


def fenchel_young(p: Saliency, q: Saliency, explainable: TokenMask, normaliser: str) -> Rows:
    """Fenchel-Young loss of each row at the scores that give ``q``, see
    :func:`pairwise_fenchel_young`; with ``"softmax"`` it is :func:`kl_divergence`.

    Raises:
        IvraError: another ``normaliser``.
    """
    if normaliser == "softmax":
        return kl_divergence(p, q, explainable)
    if normaliser == "sparsemax":
        return (p - q).square().sum(-1) / 2
    if normaliser != "entmax15":
        raise _unknown(normaliser)
    return (4 / 3 * p * _root(p) + 2 / 3 * q * _root(q) - 2 * p * _root(q)).sum(-1).clamp_min(0)


def row_divergence(name: str, normaliser: str = "softmax") -> RowDivergence:
    """The divergence called ``name``: ``kl``, ``js`` or ``fenchel-young`` of ``normaliser``.

    Half precision is computed in float32.

    Raises:
        IvraError: another name.
    """
    if name not in DIVERGENCES:
        raise unknown_name("divergence", name, list(DIVERGENCES))

    def of(p: Saliency, q: Saliency, explainable: TokenMask) -> Rows:
        dtype = torch.promote_types(p.dtype, torch.float32)
        p, q = p.to(dtype), q.to(dtype)
        if name == "kl":
            return kl_divergence(p, q, explainable)
        if name == "js":
            return js_divergence(p, q)
        return fenchel_young(p, q, explainable, normaliser)

    return of


def pairwise_kl(saliency: Saliency, explainable: TokenMask) -> Pairs:
    """``KL(r_i || r_j)`` in nats for every ordered pair of rows, by matrix products.

    Rows are compared position by position. The uniform share of every row is spread over the
    positions at which any row of the batch has an explainable token, so the value does not
    depend on the amount of padding. The diagonal is 0.
    """
    support = explainable.any(0, keepdim=True).expand_as(explainable)
    p = mixed(saliency, support)
    log = torch.where(support, p, 1.0).log()
    return _divergences((p * log).sum(-1)[:, None] - p @ log.T)


def pairwise_js(saliency: Saliency) -> Pairs:
    """Jensen-Shannon divergence in nats of every pair of rows, position by position.

    ``JS(p, q) = KL(p || m) / 2 + KL(q || m) / 2`` with ``m = (p + q) / 2`` (Lin 1991): symmetric,
    in ``[0, log 2]``, ``log 2`` iff the supports are disjoint. Nothing is mixed in. Where an entry
    is exactly 0 its derivative, which has no bound, is taken as 0: a normaliser that gives exact
    zeros has none there. Memory ``B (B - 1) L / 2``.
    """
    entropy = _negative_entropy(saliency)
    i, j = torch.triu_indices(len(saliency), len(saliency), 1, device=saliency.device)
    middle = _negative_entropy((saliency[i] + saliency[j]) / 2)
    upper = ((entropy[i] + entropy[j]) / 2 - middle).clamp_min(0)
    pairs = saliency.new_zeros(len(saliency), len(saliency)).index_put((i, j), upper)
    return pairs + pairs.T


def pairwise_fenchel_young(saliency: Saliency, explainable: TokenMask, normaliser: str) -> Pairs:
    """Fenchel-Young loss ``L(s_j; r_i)`` of every ordered pair, ``s_j`` scores that give ``r_j``.

    ``L(s; p) = Omega*(s) + Omega(p) - s . p`` with ``Omega`` the normaliser's regulariser (Blondel
    et al. 2020, arXiv:1901.02324, eq. 6), at ``s_j = grad Omega(r_j)``, the largest scores that
    ``normaliser`` maps onto ``r_j``. With ``p = r_i``, ``q = r_j``:

    * ``"softmax"``: :func:`pairwise_kl`, in nats.
    * ``"sparsemax"``: ``||p - q||^2 / 2``, in ``[0, 1]``, symmetric.
    * ``"entmax15"``: ``sum_t 4/3 p^1.5 + 2/3 q^1.5 - 2 p sqrt(q)``, in ``[0, 2]``. Where ``q`` is
      exactly 0 the derivative of its root is taken as 0, as in :func:`pairwise_js`.

    At least 0, and 0 iff both are equal. Matrix products alone.

    Raises:
        IvraError: another ``normaliser``.
    """
    if normaliser == "softmax":
        return pairwise_kl(saliency, explainable)
    if normaliser == "sparsemax":
        return squared_distances(saliency) / 2
    if normaliser != "entmax15":
        raise _unknown(normaliser)
    root = _root(saliency)
    power = (saliency * root).sum(-1)
    return _divergences(4 / 3 * power[:, None] + 2 / 3 * power[None] - 2 * saliency @ root.T)


def squared_distances(values: TokenScores) -> Pairs:
    """``||v_i - v_j||^2`` of every pair of rows, at least 0, from one matrix product.

    Values are taken about their mean over rows: a shared offset cancels in every difference, not
    in rounding.
    """
    flat = values - values.mean(0)
    square = flat.square().sum(-1)
    return _divergences(square[:, None] + square[None] - 2 * flat @ flat.T)


def _divergences(pairs: Pairs) -> Pairs:
    """``pairs`` without what rounding leaves below 0 and on the diagonal."""
    diagonal = torch.eye(len(pairs), dtype=torch.bool, device=pairs.device)
    return pairs.clamp_min(0).masked_fill(diagonal, 0)


def _root(saliency: Saliency) -> Saliency:
    """``sqrt(r)``, with derivative 0 where ``r`` is exactly 0."""
    return torch.where(saliency > 0, saliency, 1.0).sqrt() * (saliency > 0)


def _unknown(normaliser: str) -> IvraError:
    return unknown_name("normaliser", normaliser, ["softmax", "sparsemax", "entmax15"])


def _negative_entropy(saliency: TokenScores) -> Rows:
    """``sum_t r log r`` in nats; ``0 log 0 = 0``, with derivative 0."""
    positive = saliency > 0
    return (saliency * torch.where(positive, saliency, 1.0).log()).sum(-1)
