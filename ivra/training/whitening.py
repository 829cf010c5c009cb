"""Steps in coordinates in which every direction moves the saliency alike.

The features of a model are far from independent: some directions of their coefficients move the
scores of all tokens far further than others, and what tells two tokens apart may be among the
small ones. Let ``theta`` be the coefficients, ``J`` the derivative in them of the scores, each
row's about their mean, and ``G`` the mean of ``J' J`` over tokens. A step of AdamW is then taken in
``z``, with ::

    theta = W z,   W W' = (G + ridge diag(G))^(-1)

which is the metric of the natural gradient (Amari 1998) as it is at the start, for up to
:data:`JOINT` coefficients all together. More are taken head by head (the last axis of a parameter),
as if heads were independent; a head of one feature has it standardised, as for a linear model. Only
parameters move in which the scores are linear (:func:`linear_part`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch

RIDGE = 0.01
"""Share of its diagonal that is added to ``G``."""
JOINT = 4096
"""Most coefficients that are whitened all together; the matrix has their square of numbers."""
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


class Whitened(NamedTuple):
    """Parameters and the ``W`` of their coefficients: ``(F, F)`` of all ``F`` of them, one after
    the other, or ``(..., D, D)`` of a single parameter ``(..., D)``."""

    parameters: Sequence[nn.Parameter]
    matrix: Tensor

    def times(self, tensors: Sequence[Tensor], *, transposed: bool = False) -> list[Tensor]:
        """``W`` or ``W'`` times what has the parameters' shapes."""
        matrix = self.matrix.mT if transposed else self.matrix
        if matrix.dim() > 2:
            return [(matrix @ tensor[..., None])[..., 0] for tensor in tensors]
        parts = (matrix @ _flat(tensors)).split([t.numel() for t in tensors])
        return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def whitening(
    backbone: Backbone,
    module: InterpretableAttention,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[Batch],
    joint: int = JOINT,
) -> list[Whitened]:
    """The ``W`` of a module's ``parameters``, of all together where they are at most ``joint``
    coefficients, else head by head.

    ``G`` is of the rows of ``batches``; rows count alike, and so do the tokens of one.
    """
    if not parameters:
        return []
    total = sum(p.numel() for p in parameters)
    groups = [list(parameters)] if total <= joint else [[p] for p in parameters]
    shapes = [(total,)] if total <= joint else [tuple(p.shape) for p in parameters]
    sums = [parameters[0].new_zeros(*shape, shape[-1]).double() for shape in shapes]
    rows = 0
    for batch in batches:
        rows += len(batch)
        for slopes in _slopes(backbone, module, parameters, batch):
            found = [torch.cat([s.flatten(1) for s in slopes], 1)] if total <= joint else slopes
            for own, slope in zip(sums, found, strict=True):
                own += torch.einsum("t...i,t...j->...ij", slope, slope)
    means = [own / max(1, rows) for own in sums]
    largest = max(mean.diagonal(dim1=-2, dim2=-1).max().item() for mean in means)
    least = max(largest**0.5 * LEAST_SCALE, 1e-12)
    roots = [_root(mean, least).to(parameters[0]) for mean in means]
    return [Whitened(group, root) for group, root in zip(groups, roots, strict=True)]


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
        whitened: those of them that are whitened, see :func:`whitening`.
        weight_decay: has to be 0 for these.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        whitened: Sequence[Whitened],
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, weight_decay=weight_decay)
        self._whitened = whitened

    @torch.no_grad()
    def whiten_gradients(self) -> None:
        """Bring the gradients to ``z``: once before each step, and before they are clipped, since
        the longest direction of the coefficients would hide all others in their norm."""
        for own in self._whitened:
            if all(p.grad is None for p in own.parameters):
                continue
            slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in own.parameters]
            for parameter, slope in zip(
                own.parameters, own.times(slopes, transposed=True), strict=True
            ):
                parameter.grad = slope

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """AdamW's steps in ``z``, which depend on the gradients alone, brought back to the
        parameters. The gradients have to be whitened."""
        before = [[p.clone() for p in own.parameters] for own in self._whitened]
        found = super().step(closure)
        for own, olds in zip(self._whitened, before, strict=True):
            moved = [p - old for p, old in zip(own.parameters, olds, strict=True)]
            for parameter, old, step in zip(own.parameters, olds, own.times(moved), strict=True):
                parameter.copy_(old + step)
        return found
