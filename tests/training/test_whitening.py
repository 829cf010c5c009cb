"""Whitened steps against AdamW on the coordinates themselves, and the metric token by token."""

import pytest
import torch
from torch import Tensor, nn

from ivra.attention import InterpretableAttention
from ivra.backbones import load_backbone
from ivra.data import builtin_rows, collate, encode_rows
from ivra.errors import IvraError
from ivra.training import Whitened, WhitenedAdamW, linear_part, make_config, whitening

LEVELS = ("feature", "head", "layer", "value", "readout")
RIDGE = 0.01


def blocks(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("joint", [False, True], ids=["by-head", "joint"])
def test_a_step_is_adamws_in_the_whitened_coordinates(joint: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(3, 4, generator=generator).double() for _ in range(2)]
    target = torch.randn(3, 4, generator=generator).double()
    parameters = [nn.Parameter(start.clone()) for start in starts]
    other = nn.Parameter(torch.ones(2).double())
    zs = [nn.Parameter(torch.zeros(3, 4).double()) for _ in starts]
    plain = nn.Parameter(torch.ones(2).double())
    if joint:
        matrix = blocks(1, 24, 1)[0].double()
        whitened = [Whitened(parameters, matrix)]
    else:
        matrices = [blocks(3, 4, seed).double() for seed in (1, 2)]
        whitened = [Whitened([p], m) for p, m in zip(parameters, matrices, strict=True)]

    def moved() -> list[Tensor]:
        if joint:
            step = matrix @ torch.cat([z.flatten() for z in zs])
            steps = [step[:12].view(3, 4), step[12:].view(3, 4)]
        else:
            steps = [(m @ z[..., None])[..., 0] for m, z in zip(matrices, zs, strict=True)]
        return [start + step for start, step in zip(starts, steps, strict=True)]

    def loss(first: Tensor, second: Tensor, rest: Tensor) -> Tensor:
        fit = (first * second.exp() - target).pow(4).sum()
        return fit + (rest - 3).square().sum() * first.sum().cos()

    rest_rate = {"lr": 0.2}
    optimizer = WhitenedAdamW(
        [{"params": parameters, "lr": 0.1}, {"params": [other], **rest_rate}], whitened
    )
    reference = torch.optim.AdamW(
        [{"params": zs, "lr": 0.1}, {"params": [plain], **rest_rate}], weight_decay=0.0
    )
    for _ in range(10):
        optimizer.zero_grad()
        loss(*parameters, other).backward()
        optimizer.whiten_gradients()
        optimizer.step()
        reference.zero_grad()
        loss(*moved(), plain).backward()
        reference.step()
    for parameter, expected, start in zip(parameters, moved(), starts, strict=True):
        torch.testing.assert_close(parameter, expected)
        assert (parameter - start).abs().max() > 0.1
    torch.testing.assert_close(other, plain)


def test_without_a_gradient_nothing_moves() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    whitened = [Whitened([parameter], blocks(2, 3, 0))]
    optimizer = WhitenedAdamW([{"params": [parameter], "lr": 0.1}], whitened)
    optimizer.whiten_gradients()
    optimizer.step()
    assert (parameter == 1).all()


def test_a_parameter_without_a_gradient_counts_as_one_of_zeros() -> None:
    moving, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    matrix = blocks(1, 3, 0)[0]
    optimizer = WhitenedAdamW(
        [{"params": [moving, still], "lr": 0.1}], [Whitened([moving, still], matrix)]
    )
    moving.grad = torch.tensor([1.0, 2.0])
    optimizer.whiten_gradients()
    assert still.grad is not None
    torch.testing.assert_close(
        torch.cat([moving.grad, still.grad]), matrix.T @ torch.tensor([1.0, 2.0, 0.0])
    )


@pytest.mark.parametrize("joint", [0, 10**6], ids=["by-head", "joint"])
def test_the_metric_is_that_of_the_tokens_one_by_one(joint: int) -> None:
    """Rows of unlike length, padding, a parameter of every level."""
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=1).double()
    module = InterpretableAttention(backbone.sizes, LEVELS, by_class=False).double()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    labels = ["negative", "positive"]
    items = encode_rows(builtin_rows("dev")[:5], backbone.tokenizer, labels, 48)
    halves = [collate(items[:3], backbone.pad_id), collate(items[3:], backbone.pad_id)]
    assert len({len(item.input_ids) for item in items}) > 1
    parameters = linear_part(module)
    found = whitening(backbone, module, parameters, halves, joint)

    total = sum(p.numel() for p in parameters)
    whole = torch.zeros(total, total).double()
    for item in items:
        batch = collate([item], backbone.pad_id)
        encoding = backbone.encode(batch, module)
        scores = module.scores(encoding.readings, encoding.classes)[0][batch.explainable[0]]
        for score in scores - scores.mean():
            slopes = torch.autograd.grad(
                score, parameters, retain_graph=True, materialize_grads=True
            )
            slope = torch.cat([s.flatten() for s in slopes])
            whole += slope[:, None] * slope / len(scores) / len(items)

    if joint:
        assert [own.parameters for own in found] == [parameters]
        places = [torch.arange(total)]
        matrices = [found[0].matrix]
    else:
        assert [own.parameters for own in found] == [[p] for p in parameters]
        numbers = torch.arange(total).split([p.numel() for p in parameters])
        pairs = list(zip(numbers, parameters, strict=True))
        places = [heads for n, p in pairs for heads in n.view_as(p).flatten(0, -2)]
        matrices = [m for own in found for m in own.matrix.flatten(0, -3)]
    assert len(places) == len(matrices)
    for own, root in zip(places, matrices, strict=True):
        mean = whole[own][:, own]
        ridged = mean + RIDGE * mean.diag().diag()
        torch.testing.assert_close(
            root.T @ ridged @ root, torch.eye(len(own)).double(), atol=1e-6, rtol=0
        )


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
