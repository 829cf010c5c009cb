"""Tiny models whose random weights are loud, for the tests of several parts."""

import copy
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from hypothesis import settings

from ivra.backbones import Backbone, load_backbone

settings.register_profile("ivra", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("ivra")


@lru_cache
def _loud(name: str, labels: tuple[str, ...]) -> Backbone:
    backbone = load_backbone(name, labels, seed=3)
    factor = 4 if backbone.family.causal else 7
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(factor)
            else:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return backbone.eval()


@pytest.fixture(scope="session")
def loud_model() -> Callable[[str, tuple[str, ...]], Backbone]:
    """The tiny model of a name with these labels, a fresh copy.

    Its weights are so large that logits differ between rows and every token matters.
    """
    return lambda name, labels: copy.deepcopy(_loud(name, labels))
