"""Explainers that know nothing, for comparison."""

import zlib

import torch

from ivra.backbones import Backbone
from ivra.data import Batch
from ivra.explainers.explainer import Explainer
from ivra.shapes import TokenScores


class RandomScores(Explainer):
    """Uniform random scores that depend on the row's id alone, so batching changes nothing."""

    name = "random"
    summary = "uniform random scores"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def explain(self, backbone: Backbone, batch: Batch) -> TokenScores:
        scores = torch.zeros(batch.explainable.shape)
        for row, item in enumerate(batch.items):
            generator = torch.Generator().manual_seed(
                zlib.crc32(f"{self.seed}:{item.row.id}".encode())
            )
            mask = batch.explainable[row].cpu()
            scores[row, mask] = torch.rand(int(mask.sum()), generator=generator)
        return scores.to(backbone.device)
