"""Whitened steps against AdamW on the coordinates themselves, and the metric token by token."""

import pytest
import torch
from torch import Tensor, nn

from ivra.attention import InterpretableAttention
from ivra.backbones import load_backbone
from ivra.data import builtin_rows, collate, encode_rows
from ivra.errors import IvraError
from ivra.training import WhitenedAdamW, linear_part, make_config, whitening

LEVELS = ("feature", "head", "layer", "value", "readout")
RIDGE = 0.01


def blocks(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, width, generator=torch.Generator().manual_seed(seed))


def test_a_step_is_adamws_in_the_whitened_coordinates() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, generator=generator).double()
    target = torch.randn(3, 4, generator=generator).double()
    matrix = blocks(3, 4, 1).double()
    parameter, other = nn.Parameter(start.clone()), nn.Parameter(torch.ones(2).double())
    groups = [{"params": [parameter], "lr": 0.1}, {"params": [other], "lr": 0.2}]
    whitened = WhitenedAdamW(groups, [parameter], [matrix])
    z, plain = nn.Parameter(torch.zeros(3, 4).double()), nn.Parameter(torch.ones(2).double())
    reference = torch.optim.AdamW(
        [{"params": [z], "lr": 0.1}, {"params": [plain], "lr": 0.2}], weight_decay=0.0
    )

    def loss(values: Tensor, rest: Tensor) -> Tensor:
        return (values - target).pow(4).sum() + (rest - 3).square().sum() * values.sum().cos()

    for _ in range(10):
        whitened.zero_grad()
        loss(parameter, other).backward()
        whitened.step()
        reference.zero_grad()
        moved = start + (matrix @ z[..., None])[..., 0]
        loss(moved, plain).backward()
        reference.step()
    moved = start + (matrix @ z[..., None])[..., 0]
    torch.testing.assert_close(parameter, moved)
    torch.testing.assert_close(other, plain)
    assert (parameter - start).abs().max() > 0.1


def test_without_a_gradient_nothing_moves() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    optimizer = WhitenedAdamW([{"params": [parameter], "lr": 0.1}], [parameter], [blocks(2, 3, 0)])
    optimizer.step()
    assert (parameter == 1).all()


def test_the_metric_is_that_of_the_tokens_one_by_one() -> None:
    """Rows of unlike length, padding, a parameter of every level."""
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=1).double()
    module = InterpretableAttention(backbone.sizes, LEVELS).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    labels = ["negative", "positive"]
    items = encode_rows(builtin_rows("dev")[:5], backbone.tokenizer, labels, 48)
    halves = [collate(items[:3], backbone.pad_id), collate(items[3:], backbone.pad_id)]
    assert len({len(item.input_ids) for item in items}) > 1
    parameters = linear_part(module)
    found = whitening(backbone, module, parameters, halves)

    wanted = [torch.zeros(*p.shape, p.shape[-1]).double() for p in parameters]
    for item in items:
        batch = collate([item], backbone.pad_id)
        encoding = backbone.encode(batch, module)
        scores = module.scores(encoding.readings, encoding.classes)[0][batch.explainable[0]]
        for score in scores - scores.mean():
            slopes = torch.autograd.grad(
                score, parameters, retain_graph=True, materialize_grads=True
            )
            for total, slope in zip(wanted, slopes, strict=True):
                total += slope[..., None] * slope[..., None, :] / len(scores) / len(items)
    for matrix, total in zip(found, wanted, strict=True):
        for root, mean in zip(matrix.flatten(0, -3), total.flatten(0, -3), strict=True):
            scale = mean.diagonal().sqrt()
            if scale.min() < 1e-3:  # a class that no row has
                continue
            ridged = mean + RIDGE * torch.diag(scale.square())
            torch.testing.assert_close(root @ root.T, torch.linalg.inv(ridged))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (LEVELS, ["feature_query", "value", "readout"]),
        (("head", "layer"), ["head"]),
        (("layer", "value"), ["layer", "value"]),
        (("readout",), ["readout"]),
    ],
)
def test_the_scores_are_linear_in_what_moves(levels: tuple[str, ...], expected: list[str]) -> None:
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=1).double()
    module = InterpretableAttention(backbone.sizes, levels).double()
    moving = linear_part(module)
    names = {id(p): name for name, p in module.named_parameters()}
    assert [names[id(p)] for p in moving] == expected
    items = encode_rows(builtin_rows("dev")[:5], backbone.tokenizer, ["negative", "positive"], 48)
    batch = collate(items, backbone.pad_id)

    def scores() -> Tensor:
        encoding = backbone.encode(batch, module)
        return module.scores(encoding.readings, encoding.classes).detach()

    steps = [torch.randn_like(p) for p in moving]
    found = []
    for length in (0, 1, 1):
        with torch.no_grad():
            for parameter, step in zip(moving, steps, strict=True):
                parameter.add_(length * step)
        found.append(scores())
    torch.testing.assert_close(found[2] - found[1], found[1] - found[0])
    assert (found[1] - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": "backbone"}, "got train backbone"),
        ({"reading": "literal", "levels": ("head",)}, "got train module, reading literal"),
        ({"value_hidden": 4}, "value_hidden 4"),
        ({"criteria": "comp,suff", "combine": "preference"}, "preferences .*comp.*suff"),
    ],
)
def test_what_cannot_be_whitened_is_one_line(values: dict[str, object], said: str) -> None:
    with pytest.raises(IvraError, match=said):
        make_config({"whiten": True, **values})


def test_whitened_coordinates_have_a_rate_of_their_own() -> None:
    assert make_config({"lr": 0.5}).module_lr == 0.5
    assert make_config({"lr": 0.5, "whiten": True}).module_lr == pytest.approx(0.025)
