"""Steps in coordinates in which every direction moves the saliency alike.

The features of a head are far from independent: some directions of its coefficients move the
scores of all tokens far further than others, and what tells two tokens apart may be among the
small ones. Let ``theta`` be the coefficients of one head (the last axis of a parameter),
``J`` the derivative in them of the scores, each row's about their mean, and ``G`` the mean of
``J' J`` over tokens. A step of AdamW is then taken in ``z``, with ::

    theta = W z,   W W' = (G + ridge diag(G))^(-1)

which is the metric of the natural gradient (Amari 1998), head by head and as it is at the start; a
head of one feature has it standardised, as for a linear model. Only parameters move in which the
scores are linear (:func:`linear_part`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch

RIDGE = 0.01
"""Share of its diagonal that is added to ``G``."""
LEAST_SCALE = 1e-4
"""Smallest movement of the scores by one coefficient that counts, as a share of the largest."""
CHUNK = 2**24
"""Numbers of ``J`` in memory at once."""


def linear_part(module: InterpretableAttention) -> list[nn.Parameter]:
    """Parameters in which the scores are linear together, and that can say what the others say.

    Features of queries and of keys, heads, layers and the temperature multiply each other, and a
    long step in a product is not what its derivative says. So the features of queries stand for
    all of them, or the heads, or the layers.
    """
    weights = ("feature_query", "head", "layer")
    own = dict(module.named_parameters())
    first = next((name for name in weights if name in own), None)
    return [own[name] for name in (first, "value", "readout") if name in own]


def whitening(
    backbone: Backbone,
    module: InterpretableAttention,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[Batch],
) -> list[Tensor]:
    """``W`` of each of a module's ``parameters``, ``(..., D, D)`` for one of ``(..., D)``.

    ``G`` is of the rows of ``batches``; rows count alike, and so do the tokens of one.
    """
    totals = [p.new_zeros(*p.shape, p.shape[-1]).double() for p in parameters]
    rows = 0
    for batch in batches:
        rows += len(batch)
        for slopes in _slopes(backbone, module, parameters, batch):
            for total, slope in zip(totals, slopes, strict=True):
                total += torch.einsum("t...i,t...j->...ij", slope, slope)
    means = [total / max(1, rows) for total in totals]
    largest = max((mean.diagonal(dim1=-2, dim2=-1).max().item() for mean in means), default=0.0)
    least = max(largest**0.5 * LEAST_SCALE, 1e-12)
    return [_root(mean, least).to(p) for mean, p in zip(means, parameters, strict=True)]


def _root(mean: Tensor, least: float) -> Tensor:
    """``W``, the symmetric root but for the scale of the coefficients."""
    scale = mean.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt().clamp_min(least)
    values, vectors = torch.linalg.eigh(mean / scale[..., None, :] / scale[..., :, None])
    root = (vectors * (values.clamp_min(0) + RIDGE).rsqrt()[..., None, :]) @ vectors.mT
    return root / scale[..., :, None]


def _slopes(
    backbone: Backbone,
    module: InterpretableAttention,
    parameters: Sequence[nn.Parameter],
    batch: Batch,
) -> Iterator[tuple[Tensor, ...]]:
    """The derivative of tokens' scores about their row's mean in each parameter, ``(T, ..., D)``,
    over the root of the row's length; some tokens at a time."""
    with torch.enable_grad():
        encoding = backbone.encode(batch, module)
        scores = module.scores(encoding.readings, encoding.classes)
    mask, (layers, heads, *_) = batch.explainable, module.sizes
    count = mask.sum(-1, keepdim=True).clamp_min(1).to(scores)
    width = max(sum(p.numel() for p in parameters), mask.numel() * layers * heads)
    for row, place in (part.T for part in mask.nonzero().split(max(1, CHUNK // width))):
        own = torch.arange(len(row), device=row.device)
        wanted = scores.new_zeros(len(row), *mask.shape)
        wanted[own, row] = -(mask / count)[row]
        wanted[own, row, place] += 1
        yield torch.autograd.grad(
            scores,
            parameters,
            wanted / count[row, :, None].sqrt(),
            retain_graph=True,
            is_grads_batched=True,
            materialize_grads=True,
        )


class WhitenedAdamW(torch.optim.AdamW):
    """AdamW whose steps in some of its parameters are taken in whitened coordinates.

    Args:
        groups: parameters and rates, as of AdamW.
        parameters: those of them that are whitened.
        whitening: ``W`` of each, see :func:`whitening`.
        weight_decay: has to be 0 for those that are whitened.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        parameters: Sequence[nn.Parameter],
        whitening: Sequence[Tensor],
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, weight_decay=weight_decay)
        self._whitened = list(zip(parameters, whitening, strict=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """The gradients are brought to ``z``, and AdamW's steps, which depend on these alone,
        back to the parameters."""
        before = [p.clone() for p, _ in self._whitened]
        for parameter, matrix in self._whitened:
            if parameter.grad is not None:
                parameter.grad = _times(matrix.mT, parameter.grad)
        found = super().step(closure)
        for (parameter, matrix), old in zip(self._whitened, before, strict=True):
            parameter.copy_(old + _times(matrix, parameter - old))
        return found


def _times(matrix: Tensor, values: Tensor) -> Tensor:
    return (matrix @ values[..., None])[..., 0]
