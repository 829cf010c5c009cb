"""One thread: the models are tiny. The loud model of a name, with three classes."""

from collections.abc import Callable

import pytest
import torch

from ivra.backbones import Backbone

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def loud(loud_model: Callable[[str, tuple[str, ...]], Backbone]) -> Callable[[str], Backbone]:
    """A model whose logits and attention differ much between tokens, a fresh copy."""
    return lambda name: loud_model(name, ("no", "yes", "maybe"))
