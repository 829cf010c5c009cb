"""The temperature that training begins at, by scipy's entropy of every row."""

import pytest
import scipy.stats
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, builtin_rows, collate, encode_rows
from ivra.training.temperature import begin_at_entropy


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny-electra", ("no", "yes"), seed=1)


@pytest.fixture(scope="module")
def batches(backbone: Backbone) -> list[Batch]:
    items = encode_rows(builtin_rows("dev")[:20], backbone.tokenizer, ["negative", "positive"], 48)
    return [collate(items[:12], backbone.pad_id), collate(items[12:], backbone.pad_id)]


def shares(backbone: Backbone, module: InterpretableAttention, batch: Batch) -> list[float]:
    """Entropy of each row over that of a flat one."""
    encoding = backbone.encode(batch, module)
    saliency = module(encoding.readings, batch.explainable, encoding.classes).detach()
    rows = [r[mask] for r, mask in zip(saliency.double(), batch.explainable, strict=True)]
    return [scipy.stats.entropy(r.numpy()) / scipy.stats.entropy([1] * len(r)) for r in rows]


@pytest.mark.parametrize("norm", ["softmax", "entmax15"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_the_mean_entropy_is_what_was_asked_for(
    backbone: Backbone, batches: list[Batch], share: float, norm: str
) -> None:
    module = InterpretableAttention(backbone.sizes, saliency_norm=norm)
    others = {k: v.clone() for k, v in module.state_dict().items() if k != "log_temperature"}
    begin_at_entropy(backbone, module, batches, share)
    found = [s for batch in batches for s in shares(backbone, module, batch)]
    assert sum(found) / len(found) == pytest.approx(share, abs=1e-3)
    for name, value in others.items():
        assert torch.equal(module.state_dict()[name], value), name


def test_a_temperature_that_was_moved_before_makes_no_difference(
    backbone: Backbone, batches: list[Batch]
) -> None:
    found = []
    for start in (-1.0, 2.0):
        module = InterpretableAttention(backbone.sizes)
        with torch.no_grad():
            module.log_temperature.fill_(start)
        begin_at_entropy(backbone, module, batches, 0.4)
        found.append(module.log_temperature.item())
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_module_without_a_temperature_is_left_alone(
    backbone: Backbone, batches: list[Batch]
) -> None:
    module = InterpretableAttention(backbone.sizes, reading="literal")
    before = {k: v.clone() for k, v in module.state_dict().items()}
    begin_at_entropy(backbone, module, batches, 0.4)
    assert all(torch.equal(module.state_dict()[k], v) for k, v in before.items())


def test_scores_that_are_all_alike_are_left_alone(backbone: Backbone, batches: list[Batch]) -> None:
    module = InterpretableAttention(backbone.sizes, ("value",))
    with torch.no_grad():  # no weight on the heads: nothing tells tokens apart
        module.head_coefficients = lambda: torch.zeros(backbone.sizes.layers, backbone.sizes.heads)
    begin_at_entropy(backbone, module, batches, 0.4)
    assert module.log_temperature.item() == 0
