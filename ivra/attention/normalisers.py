"""Maps from real scores onto the simplex over the allowed entries of a row.

All three are the alpha-entmax family (Peters et al., 2019, arXiv:1905.05702, eq. 8-10), whose
solution has the form ``p_i = [(alpha - 1) s_i - tau]_+ ^ (1 / (alpha - 1))`` with ``tau`` such
that ``p`` sums to 1: softmax is alpha = 1, 1.5-entmax is alpha = 1.5 and sparsemax is alpha = 2
(Martins & Astudillo, 2016, arXiv:1602.02068).

Which entries are in the support is found without gradient; the threshold is then a plain
differentiable formula of the scores in the support. So the first and the second derivative, in
reverse and in forward mode, are torch's own, and finite everywhere. The functions of the
``entmax`` package are not used: the gradient of its 1.5-entmax holds ``sqrt(p)``, whose
derivative is infinite at ``p = 0``, and none of its functions has a forward-mode rule.

Contract of every normaliser, ``normaliser(scores, mask, dim=-1)``:

* ``scores`` float of any shape; ``mask`` bool that broadcasts to it, true where an entry may
  receive mass, or ``None`` for everywhere. The result has the shape and dtype of ``scores``.
* The result is >= 0 and sums to 1 along ``dim`` up to rounding. Masked entries are exactly 0
  and have exactly zero gradient, whatever stands there (NaN and infinities included): masking
  an entry is the same as removing it.
* One allowed entry gives exactly 1. A row with none gives zeros, and zero derivatives.
* float16 and bfloat16 are computed in float32.
* Where an entry is just at the threshold or tied with another the derivative is the one of the
  support found (tied entries are in or out together).
* An allowed -inf next to a finite score gets 0; an allowed NaN or +inf makes its row NaN, and
  so do allowed scores that are all -inf.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ivra.errors import IvraError, unknown_name

Scores = Float[Tensor, "*shape"]
Mask = Bool[Tensor, "..."]
_Row = Float[Tensor, "... n"]
_Column = Float[Tensor, "... 1"]
_Allowed = Bool[Tensor, "... n"]


@runtime_checkable
class Normaliser(Protocol):
    """A map onto the simplex over the allowed entries; the module states the contract."""

    def __call__(self, scores: Scores, mask: Mask | None, dim: int = -1) -> Scores: ...


def masked_softmax(scores: Scores, mask: Mask | None, dim: int = -1) -> Scores:
    """``p_i = exp(s_i) / sum_j exp(s_j)`` over the allowed entries; never 0 short of underflow."""
    return _normalise(_softmax, scores, mask, dim)


def masked_sparsemax(scores: Scores, mask: Mask | None, dim: int = -1) -> Scores:
    """``p = argmin_p ||p - s||^2`` on the simplex (Martins & Astudillo, 2016, eq. 1-2).

    Zero from a distance of 1 below the largest score on, at the latest. Piecewise linear: the
    second derivative is 0, and outside the support so is the first.
    """
    return _normalise(_sparsemax, scores, mask, dim)


def masked_entmax15(scores: Scores, mask: Mask | None, dim: int = -1) -> Scores:
    """``p_i = [s_i / 2 - tau]_+ ^ 2`` (Peters et al., 2019, section 3.3): between the two others.

    Zero from a distance of 2 below the largest score on, at the latest. The first derivative is
    continuous; the second is finite but jumps where an entry enters the support.
    """
    return _normalise(_entmax15, scores, mask, dim)


NORMALISERS: dict[str, Normaliser] = {
    "softmax": masked_softmax,
    "sparsemax": masked_sparsemax,
    "entmax15": masked_entmax15,
}


def normaliser(name: str) -> Normaliser:
    """The normaliser called ``name``; an unknown name is an :class:`IvraError` listing all."""
    if name not in NORMALISERS:
        raise unknown_name("normaliser", name, list(NORMALISERS))
    return NORMALISERS[name]


def _normalise(
    project: Callable[[_Row, _Allowed], _Row], scores: Tensor, mask: Tensor | None, dim: int
) -> Tensor:
    """``project`` along the last axis in at least float32, with blank scores where masked."""
    if not scores.is_floating_point():
        raise IvraError(f"scores must be floating point, got {scores.dtype}. Use scores.float().")
    if mask is not None and mask.dtype != torch.bool:
        raise IvraError(
            f"mask must be bool (True = may receive mass), got {mask.dtype}. Use mask.bool()."
        )
    if scores.numel() == 0:
        return scores.clone()
    if mask is None:
        allowed = torch.ones_like(scores, dtype=torch.bool)
    else:
        allowed = mask.broadcast_to(scores.shape)
    wide = torch.promote_types(scores.dtype, torch.float32)
    row = torch.where(allowed, scores.to(wide), 0.0).movedim(dim, -1)
    return project(row, allowed.movedim(dim, -1)).movedim(-1, dim).to(scores.dtype)


def _softmax(row: _Row, allowed: _Allowed) -> _Row:
    blank = torch.zeros_like(row).masked_fill(allowed.any(-1, keepdim=True), -torch.inf)
    return torch.where(allowed, torch.softmax(torch.where(allowed, row, blank), dim=-1), 0.0)


def _sparsemax(row: _Row, allowed: _Allowed) -> _Row:
    """``tau = (sum_S z - 1) / |S|`` (Martins & Astudillo, 2016, eq. 4)."""
    z = _below_maximum(row, allowed)
    support, size = _support(z, allowed, power=1)
    tau = (torch.where(support, z, 0.0).sum(-1, keepdim=True) - 1) / size
    return torch.where(support, (z - tau).clamp(min=0), 0.0)


def _entmax15(row: _Row, allowed: _Allowed) -> _Row:
    """``tau = M - sqrt((1 - V) / |S|)``, M the mean of z over S and V its sum of squares about M.

    (Peters et al., 2019, algorithm 2.) The root is harmless: ``|S| (M - tau)`` is the 1-norm of
    ``z - tau`` over S and 1 is its 2-norm, which is never larger, so the root is >= 1 / |S|.
    """
    z = _below_maximum(row / 2, allowed)
    support, size = _support(z, allowed, power=2)
    mean = torch.where(support, z, 0.0).sum(-1, keepdim=True) / size
    spread = torch.where(support, (z - mean) ** 2, 0.0).sum(-1, keepdim=True)
    tau = mean - ((1 - spread) / size).sqrt()
    return torch.where(support, (z - tau).clamp(min=0) ** 2, 0.0)


def _below_maximum(row: _Row, allowed: _Allowed) -> _Row:
    """``row`` less its largest allowed entry, held constant: the result is invariant to it."""
    top = row.detach().masked_fill(~allowed, -torch.inf).amax(-1, keepdim=True)
    return row - torch.where(allowed.any(-1, keepdim=True), top, 0.0)


def _support(z: _Row, allowed: _Allowed, power: int) -> tuple[_Allowed, _Column]:
    """Entries above the threshold of ``sum_i [z_i - tau]_+ ^ power = 1``, and their number.

    The sum falls as tau rises, so ``z_k > tau`` just where the sum at ``tau = z_k``, which runs
    over the entries above z_k, is below 1. With ``max z = 0`` nothing below -1 is in the support,
    which lets us clamp there and keeps the running sums exact enough. The number is at least 1,
    so that a row without support can be divided by it. NaN counts as support, so it shows.
    """
    u = z.detach().masked_fill(~allowed, -1.0).clamp(min=-1.0)
    ranked = u.sort(dim=-1, descending=True).values
    rank = torch.arange(1, u.shape[-1] + 1, dtype=u.dtype, device=u.device)
    if power == 1:
        excess = ranked.cumsum(-1) - rank * ranked
    else:
        excess = (ranked**2).cumsum(-1) - 2 * ranked * ranked.cumsum(-1) + rank * ranked**2
    last = ((excess < 1).sum(-1, keepdim=True) - 1).clamp(min=0)
    support = allowed & ~(u <= -1) & ~(u < ranked.gather(-1, last))
    return support, support.sum(-1, keepdim=True).clamp(min=1).to(z.dtype)
