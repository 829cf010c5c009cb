"""The cut at the k percent most salient tokens, and gradients through it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ivra.errors import unknown_name
from ivra.shapes import Rows, Saliency, TokenMask, TokenScores

CUT_GRADIENTS = ("straight-through", "sigmoid", "entropic", "perturbed")
"""What :func:`soft_top_k` knows."""
TOPK_GRADIENTS = (*CUT_GRADIENTS, "sampled")
"""These, and :func:`sampled_loss`."""
SAMPLES = 8
"""Perturbations that ``"perturbed"`` and ``"sampled"`` average over."""


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
    samples: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> TokenScores:
    """The 0/1 cut of :func:`top_k` whose gradient passes to the saliency.

    The value is always the hard cut, to the bit; ``gradient`` says what it is differentiated as
    (half precision in float32). With ``s = log r``, ``T`` the ``temperature`` and ``n`` the size
    of the cut:

    * ``"straight-through"``: ``d keep_j / d r_j = 1``, as if the cut were ``r`` itself
      (Bengio et al. 2013, arXiv:1308.3432).
    * ``"sigmoid"``: ``keep_j = sigmoid((s_j - t) / T)`` with ``t`` a constant halfway between the
      last token inside the cut and the first outside: largest at the cut, independent of the
      scale of ``r``.
    * ``"entropic"``: ``keep_j = sigmoid((s_j - t) / T)`` with ``t`` such that the sum is ``n``,
      differentiated through ``t`` as well: what one token gains the others lose. It is the top-k
      with an entropy term (Amos et al. 2019, arXiv:1906.08707, "limited multi-label projection").
    * ``"perturbed"``: ``keep = E_z[top_k(s + T z)]``, ``z`` standard normal (Berthet et al. 2020,
      arXiv:2002.08676, eq. 6), whose Jacobian ``E_z[top_k(s + T z) z'] / T`` is estimated from
      ``samples`` draws of ``generator``, in pairs ``z, -z`` and with ``z'`` about its mean over
      the row, which leaves out noise alone: unbiased, noisy.

    The derivatives of the last two sum to zero over a row's tokens. A row whose tokens are all
    inside the cut has none to choose between: their derivative is 0 there.

    Raises:
        IvraError: unknown ``gradient``.
    """
    if gradient not in CUT_GRADIENTS:
        raise unknown_name("top-k gradient", gradient, list(CUT_GRADIENTS))
    inside = top_k(saliency, explainable, percent)
    hard = inside.to(saliency)
    if gradient == "straight-through":
        return hard + (saliency - saliency.detach())
    log = _log(saliency)
    if gradient == "sigmoid":
        soft = torch.sigmoid((log - _middle(log, inside, explainable)) / temperature) * explainable
        return hard + (soft - soft.detach()).to(hard)
    moved = (log - log.detach()) * explainable  # zero, with the gradient of log r
    if gradient == "entropic":
        return hard + _entropic(log.detach(), moved, inside, explainable, temperature).to(hard)
    total = torch.zeros_like(hard)
    for z in _noise(log, samples, generator):
        plus, minus = _cuts_about(log, temperature * z, explainable, percent)
        along = (_free(z, explainable) * moved).sum(-1, keepdim=True) / temperature
        total = total + (plus - minus) * along
    return hard + (total / (2 * _pairs(samples))).to(hard)


def sampled_loss(
    saliency: Saliency,
    explainable: TokenMask,
    percent: float,
    loss: Callable[[TokenScores], Rows],
    temperature: float = 1.0,
    samples: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Rows:
    """``loss`` of the hard cut, with the gradient of the same averaged over scores nearby.

    Every gradient of :func:`soft_top_k` trusts the derivative of the loss in ``keep`` at the hard
    cut, which tells little of what a whole token more or less would do. This one needs no such
    derivative: with ``s = log r``, ``z`` standard normal and ``T`` the ``temperature`` it is the
    antithetic estimate (Berthet et al. 2020, eq. 6, with the loss in the place of the cut; Salimans
    et al. 2017, arXiv:1703.03864)

        d/ds E_z[loss(top_k(s + T z))] = E_z[(loss(top_k(s + T z)) - loss(top_k(s - T z))) z / 2T]

    from ``samples / 2`` (rounded up) pairs, ``z`` about its mean over the row: unbiased for the
    smoothed hard objective, noisy. Each sample is a call of ``loss`` without gradients; what
    ``loss`` depends on besides the cut (a model that trains) gets its gradient at the hard cut.
    """
    log = _log(saliency)
    moved = (log - log.detach()) * explainable
    value = loss(top_k(saliency, explainable, percent).to(saliency))
    total = torch.zeros_like(value)
    for z in _noise(log, samples, generator):
        cuts = _cuts_about(log, temperature * z, explainable, percent)
        with torch.no_grad():
            plus, minus = (loss(cut.to(saliency)) for cut in cuts)
        along = (_free(z, explainable) * moved).sum(-1) / temperature
        total = total + (plus - minus) * along
    return value + (total / (2 * _pairs(samples))).to(value)


def _log(saliency: Saliency) -> TokenScores:
    """``log r`` in at least float32, from a floor on."""
    wide = torch.promote_types(saliency.dtype, torch.float32)
    return saliency.to(wide).clamp_min(torch.finfo(wide).tiny ** 0.5).log()


def _pairs(samples: int) -> int:
    return (samples + 1) // 2


def _cuts_about(
    log: TokenScores, shift: TokenScores, explainable: TokenMask, percent: float
) -> tuple[TokenScores, TokenScores]:
    """The cuts at ``log + shift`` and ``log - shift``."""
    scores = log.detach()
    plus = top_k(scores + shift, explainable, percent)
    return plus.to(log), top_k(scores - shift, explainable, percent).to(log)


def _free(z: TokenScores, explainable: TokenMask) -> TokenScores:
    """``z`` about its mean over a row's tokens: a shift of all scores changes no cut."""
    count = explainable.sum(-1, keepdim=True).clamp_min(1)
    return (z - (z * explainable).sum(-1, keepdim=True) / count) * explainable


def _middle(log: TokenScores, inside: TokenMask, explainable: TokenMask) -> Tensor:
    """Halfway between the lowest score inside the cut and the highest outside, ``(B, 1)``."""
    last = log.masked_fill(~inside, torch.inf).amin(-1, keepdim=True)
    outside = explainable & ~inside
    first = log.masked_fill(~outside, -torch.inf).amax(-1, keepdim=True)
    first = torch.where(outside.any(-1, keepdim=True), first, last)
    return ((last + first) / 2).detach().nan_to_num(0.0, 0.0, 0.0)


def _noise(like: TokenScores, samples: int, generator: torch.Generator | None) -> Tensor:
    """``samples / 2`` (rounded up) standard normal draws of the shape of ``like``."""
    shape = (_pairs(samples), *like.shape)
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(like)


def _entropic(
    log: TokenScores,
    moved: TokenScores,
    inside: TokenMask,
    explainable: TokenMask,
    temperature: float,
) -> TokenScores:
    """Zero, with ``d keep_i / d s_j = (w_i [i = j] - w_i w_j / sum w) / T``, ``w = p (1 - p)``."""
    wanted = inside.sum(-1, keepdim=True)
    count = explainable.sum(-1, keepdim=True)
    free = wanted < count
    # All scores at the lowest (highest) would put the threshold here: it lies between.
    edge = torch.where(free, (wanted / (count - wanted).clamp_min(1)).log(), 0.0).double()
    scores = log.double() / temperature
    low = scores.masked_fill(~explainable, torch.inf).amin(-1, keepdim=True) - edge
    high = scores.masked_fill(~explainable, -torch.inf).amax(-1, keepdim=True) - edge
    for _ in range(60):
        threshold = (low + high) / 2
        total = (torch.sigmoid(scores - threshold) * explainable).sum(-1, keepdim=True)
        low = torch.where(total > wanted, threshold, low)
        high = torch.where(total > wanted, high, threshold)
    p = torch.sigmoid(scores - (low + high) / 2)
    w = torch.where(explainable & free, p * (1 - p), 0.0).to(log)
    share = (w * moved).sum(-1, keepdim=True) / w.sum(-1, keepdim=True).clamp_min(1e-30)
    return w * (moved - share) / temperature
