"""Spearman's rank correlation with average ranks."""

import torch
from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 in float64; equal values share the mean of their places."""
    _, inverse, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts - 1) / 2)[inverse]


def spearman(x: Tensor, y: Tensor) -> float | None:
    """Spearman's rho of two vectors, in ``[-1, 1]``; ``None`` where either is constant."""
    a, b = average_ranks(x), average_ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = (a.square().sum() * b.square().sum()).sqrt()
    return None if scale == 0 else float((a * b).sum() / scale)
