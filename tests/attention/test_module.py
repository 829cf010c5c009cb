"""The attention module against naive loops over layers, heads, queries and tokens."""

import itertools
import json
import math
from collections.abc import Sequence

import entmax
import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ivra.attention import (
    LEVELS,
    Attending,
    AttentionSizes,
    InterpretableAttention,
    LayerInputs,
    LayerReading,
)
from ivra.errors import IvraError

SIZES = AttentionSizes(layers=2, heads=4, head_dim=3, value_dim=2, classes=3, places=2)
SCALING = 0.7
PREDICTIONS = torch.tensor([2, 0, 1])
PLACES = torch.tensor([[1, 4], [0, 3], [5, 5]])
VISIBLE = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]]).bool()
EXPLAINABLE = torch.tensor([[0, 1, 1, 1, 1, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]).bool()

SUBSETS = [
    levels for count in range(len(LEVELS) + 1) for levels in itertools.combinations(LEVELS, count)
]
FOR_LITERAL = [levels for levels in SUBSETS if not {"value", "readout"} & set(levels)]
CASES = [
    *(("gains", levels) for levels in SUBSETS),
    *(("coefficients", levels) for levels in SUBSETS),
    *(("literal", levels) for levels in FOR_LITERAL),
]
every_case = pytest.mark.parametrize(
    ("reading", "levels"), CASES, ids=[f"{r}-{'+'.join(ls) or 'none'}" for r, ls in CASES]
)


def norm(name: str, values: np.ndarray) -> np.ndarray:
    """NORM of a vector, by scipy and by the ``entmax`` package."""
    if name == "softmax":
        return scipy.special.softmax(values)
    project = {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}[name]
    return project(torch.tensor(values), dim=0).numpy()


def layers(
    seed: int, groups: int = 4, sizes: AttentionSizes = SIZES, visible: Tensor = VISIBLE
) -> list[LayerInputs]:
    """Queries, keys and values of every layer; what stands on padding is loud."""
    generator = torch.Generator().manual_seed(seed)
    batch, length = visible.shape

    def drawn(heads: int, dim: int) -> Tensor:
        shape = (batch, heads, length, dim)
        states = torch.randn(shape, generator=generator, dtype=torch.float64)
        return torch.where(visible[:, None, :, None], states, 50 * states)

    return [
        LayerInputs(
            query=drawn(sizes.heads, sizes.head_dim),
            key=drawn(groups, sizes.head_dim),
            value=drawn(groups, sizes.value_dim),
            scaling=SCALING,
            visible=visible,
            mask=None,
            causal=False,
        )
        for _ in range(sizes.layers)
    ]


def module_of(
    reading: str,
    levels: Sequence[str],
    coefficients_norm: str = "softmax",
    saliency_norm: str = "softmax",
    seed: int | None = 1,
    sizes: AttentionSizes = SIZES,
    value_hidden: int = 0,
) -> InterpretableAttention:
    """A float64 module; its coefficients are drawn, or at their start for ``seed=None``."""
    module = InterpretableAttention(
        sizes, levels, reading, coefficients_norm, saliency_norm, value_hidden=value_hidden
    ).double()
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.add_(0.6 * noise)
    return module


def saliency_of(
    module: InterpretableAttention,
    inputs: Sequence[LayerInputs],
    explainable: Tensor = EXPLAINABLE,
    predictions: Tensor | None = PREDICTIONS,
) -> Tensor:
    return module(readings_of(module, inputs), explainable, predictions)


def readings_of(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], places: Tensor = PLACES
) -> list[LayerReading]:
    """What the module reads, as a backbone finishes it."""
    places = places[: len(inputs[0].visible)]
    return [module.read_layer(layer, given).settled(places) for layer, given in enumerate(inputs)]


def weight(module: InterpretableAttention, name: str, start: float, shape: tuple) -> np.ndarray:
    """A level's raw coefficients, or its constant start where the level is off."""
    found = getattr(module, name, None)
    return np.full(shape, start) if found is None else found.detach().numpy()


def naive_mean_logits(
    query: np.ndarray, key: np.ndarray, scale: float, visible: np.ndarray
) -> np.ndarray:
    """All L x L logits of one head one by one, then their mean over visible queries."""
    length = len(query)
    logits = np.zeros((length, length))
    for n in range(length):
        for j in range(length):
            logits[n, j] = scale * sum(query[n, d] * key[j, d] for d in range(query.shape[1]))
    return np.stack([logits[n] for n in range(length) if visible[n]]).mean(0)


def naive_psi(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], row: int
) -> np.ndarray:
    """Equations 1, 2 and 4 of one row, (layers, heads, tokens)."""
    n, h, d, *_ = module.sizes
    start = 0.0 if module.reading == "coefficients" else 1.0
    feature_query = weight(module, "feature_query", start, (n, h, d))
    feature_key = weight(module, "feature_key", start, (n, h, d))
    psi = np.zeros((n, h, inputs[0].query.shape[2]))
    for layer, given in enumerate(inputs):
        for head in range(h):
            group = head // (h // given.key.shape[1])
            query = given.query[row, head].numpy()
            key = given.key[row, group].numpy()
            weigh_query, weigh_key = feature_query[layer, head], feature_key[layer, head]
            scale = given.scaling
            if module.reading == "coefficients":
                weigh_query = d * norm(module.coefficients_norm, weigh_query)
                weigh_key = d * norm(module.coefficients_norm, weigh_key)
            query, key = query * weigh_query, key * weigh_key
            if module.reading == "literal" and "feature" in module.levels:
                query = np.stack([norm(module.coefficients_norm, token) for token in query])
                key = np.stack([norm(module.coefficients_norm, token) for token in key])
                scale = 1.0
            visible = given.visible[row].numpy()
            psi[layer, head] = naive_mean_logits(query, key, scale, visible)
    return psi


def naive_head_weights(module: InterpretableAttention) -> np.ndarray:
    """``eta_l lambda_l^h`` of the two readings that end in one map over tokens."""
    n, h = module.sizes.layers, module.sizes.heads
    if module.reading == "gains":
        head, layer = weight(module, "head", 1, (n, h)), weight(module, "layer", 1, (n,))
        return np.array([[layer[i] * head[i, k] / (n * h) for k in range(h)] for i in range(n)])
    name = module.coefficients_norm
    head, layer = weight(module, "head", 0, (n, h)), weight(module, "layer", 0, (n,))
    if "head" in module.levels and "layer" not in module.levels:
        return norm(name, head.reshape(-1)).reshape(n, h)
    eta = norm(name, layer)
    return np.stack([eta[i] * norm(name, head[i]) for i in range(n)])


def naive_saliency(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], explainable: Tensor
) -> np.ndarray:
    """The whole module, row by row."""
    result = np.zeros(explainable.shape)
    for row in range(len(explainable)):
        allowed = np.flatnonzero(explainable[row].numpy())
        psi = naive_psi(module, inputs, row)[:, :, allowed]
        if module.reading == "literal":
            result[row, allowed] = naive_literal(module, psi)
            continue
        scores = np.zeros(len(allowed))
        weights = naive_head_weights(module)
        for layer, head in np.ndindex(weights.shape):
            scores += weights[layer, head] * psi[layer, head]
        if "value" in module.levels:
            scores += naive_evidence(module, inputs, row)[allowed]
        if "readout" in module.levels:
            scores += naive_readout(module, inputs, row)[allowed]
        if module.reading == "gains" and module.levels:
            scores *= np.exp(module.log_temperature.item())
        result[row, allowed] = norm(module.saliency_norm, scores)
    return result


def naive_literal(module: InterpretableAttention, psi: np.ndarray) -> np.ndarray:
    """Equations 3 and 5, NORM over all of its argument each time."""
    n, h, _ = psi.shape
    if "head" in module.levels:
        head = weight(module, "head", 1, (n, h))
        psi = np.stack(
            [
                norm(module.coefficients_norm, (head[i][:, None] * psi[i]).reshape(-1)).reshape(
                    psi[i].shape
                )
                for i in range(n)
            ]
        )
    layer = weight(module, "layer", 1, (n,))
    joint = norm(module.saliency_norm, (layer[:, None, None] * psi).reshape(-1))
    return joint.reshape(psi.shape).sum((0, 1))


def naive_evidence(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], row: int
) -> np.ndarray:
    """The value level: ``sum over layers and heads of u . v_j`` for the predicted class."""
    n, h, _, dv, *_ = module.sizes
    u = module.value.detach().numpy()[PREDICTIONS[row]]
    u = u / math.sqrt(u.size)  # the fan-in: layers x heads x features
    evidence = np.zeros(inputs[0].value.shape[2])
    for layer, head, j, d in np.ndindex(n, h, len(evidence), dv):
        group = head // (h // inputs[layer].value.shape[1])
        evidence[j] += u[layer, head, d] * inputs[layer].value[row, group, j, d].item()
    if module.value_hidden:
        evidence += naive_hidden(module, inputs, row)
    return evidence


def naive_readout(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], row: int
) -> np.ndarray:
    """What the tokens at the places attend to, weighed for the predicted class."""
    n, h, *_ = module.sizes
    weights = module.readout.detach().numpy()[PREDICTIONS[row]]
    visible = np.flatnonzero(VISIBLE[row].numpy())
    found = np.zeros(inputs[0].query.shape[2])
    for p, layer, head in np.ndindex(module.sizes.places, n, h):
        given = inputs[layer]
        query = given.query[row, head, PLACES[row, p]].numpy()
        key = given.key[row, head // (h // given.key.shape[1])].numpy()
        logits = np.array([SCALING * (query * key[j]).sum() for j in visible])
        found[visible] += weights[p, layer, head] * scipy.special.softmax(logits)
    return found


def naive_hidden(
    module: InterpretableAttention, inputs: Sequence[LayerInputs], row: int
) -> np.ndarray:
    """The hidden units of the value level, one by one; GELU by the error function."""
    n, h, _, dv, *_ = module.sizes
    own, beside = (
        weights.detach().numpy() / math.sqrt(n * h * dv)
        for weights in (module.hidden_value, module.hidden_context)
    )
    out = module.hidden_out.detach().numpy()[PREDICTIONS[row]]
    visible = np.flatnonzero(VISIBLE[row].numpy())
    found = np.zeros(inputs[0].value.shape[2])
    for j, k in np.ndindex(len(found), module.value_hidden):
        total = module.hidden_bias[k].item()
        for layer, head, d in np.ndindex(n, h, dv):
            group = head // (h // inputs[layer].value.shape[1])
            column = inputs[layer].value[row, group, :, d].numpy()
            total += own[k, layer, head, d] * column[j]
            total += beside[k, layer, head, d] * column[visible].mean()
        active = total * (1 + math.erf(total / math.sqrt(2))) / 2
        found[j] += out[k] * active / math.sqrt(module.value_hidden)
    return found


@pytest.mark.parametrize("groups", [4, 2, 1])
@every_case
def test_every_reading_is_the_naive_loop_over_all_queries_and_tokens(
    reading: str, levels: tuple[str, ...], groups: int
) -> None:
    module, inputs = module_of(reading, levels), layers(7, groups)
    found = saliency_of(module, inputs).detach().numpy()
    np.testing.assert_allclose(
        found, naive_saliency(module, inputs, EXPLAINABLE), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("reading", ["gains", "coefficients"])
def test_hidden_units_are_the_naive_loop(reading: str, groups: int) -> None:
    module, inputs = module_of(reading, LEVELS, value_hidden=3), layers(7, groups)
    found = saliency_of(module, inputs)
    np.testing.assert_allclose(
        found.detach().numpy(), naive_saliency(module, inputs, EXPLAINABLE), rtol=1e-9, atol=1e-12
    )
    without = module_of(reading, LEVELS)
    without.load_state_dict(module.state_dict(), strict=False)
    assert not torch.allclose(found, saliency_of(without, inputs))
    (found * torch.rand(6)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name


def test_hidden_units_start_without_a_say() -> None:
    plain, hidden = (module_of("gains", LEVELS, seed=None, value_hidden=count) for count in (0, 4))
    inputs = layers(5)
    torch.testing.assert_close(saliency_of(hidden, inputs), saliency_of(plain, inputs))
    assert InterpretableAttention(SIZES, LEVELS, value_hidden=4).config()["value_hidden"] == 4


@pytest.mark.parametrize("value_hidden", [0, 3])
def test_without_classes_every_row_is_explained_as_by_one_that_has_them_all_alike(
    value_hidden: int,
) -> None:
    one = InterpretableAttention(SIZES, LEVELS, value_hidden=value_hidden, by_class=False).double()
    each = InterpretableAttention(SIZES, LEVELS, value_hidden=value_hidden).double()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.6 * torch.randn_like(parameter))
        for own, other in zip(each.parameters(), one.parameters(), strict=True):
            own.copy_(other)  # the one class stands for all
    inputs = layers(7)
    found = saliency_of(one, inputs)
    torch.testing.assert_close(found, saliency_of(each, inputs))
    torch.testing.assert_close(saliency_of(one, inputs, predictions=None), found)
    assert one.config()["by_class"] is False


def test_hidden_units_belong_to_the_value_level() -> None:
    expected = (
        "value_hidden is 2, but the levels are head,layer: hidden units belong to the level "
        "'value'; add it, or leave them out"
    )
    with pytest.raises(IvraError) as error:
        InterpretableAttention(SIZES, ("head", "layer"), value_hidden=2)
    assert str(error.value) == expected


@pytest.mark.parametrize("coefficients_norm", ["softmax", "sparsemax", "entmax15"])
@pytest.mark.parametrize("saliency_norm", ["softmax", "sparsemax", "entmax15"])
@pytest.mark.parametrize("reading", ["gains", "coefficients", "literal"])
def test_the_two_choices_of_norm_are_kept_apart(
    reading: str, coefficients_norm: str, saliency_norm: str
) -> None:
    levels = ("feature", "head", "layer")
    module = module_of(reading, levels, coefficients_norm, saliency_norm)
    inputs = layers(3, groups=2)
    np.testing.assert_allclose(
        saliency_of(module, inputs).detach().numpy(),
        naive_saliency(module, inputs, EXPLAINABLE),
        rtol=1e-7,
        atol=1e-9,
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_head_level_alone_with_sparsemax_coefficients_is_smat(seed: int) -> None:
    module = module_of("coefficients", ("head",), "sparsemax", seed=seed)
    inputs = layers(seed)
    phi = module.head.detach()
    coefficients = entmax.sparsemax(phi.flatten(), dim=0).view_as(phi)
    assert 0 < int((coefficients == 0).sum()) < phi.numel(), "draw coefficients that are sparse"
    expected = np.zeros(EXPLAINABLE.shape)
    for row in range(len(EXPLAINABLE)):
        allowed = EXPLAINABLE[row]
        total = torch.zeros(int(allowed.sum()), dtype=torch.float64)
        for layer, head in np.ndindex(*phi.shape):
            queries = inputs[layer].query[row, head][VISIBLE[row]]
            keys = inputs[layer].key[row, head][allowed]
            scores = torch.stack([keys @ query for query in queries]).mean(0) * SCALING
            total += coefficients[layer, head] * scores
        expected[row, allowed.numpy()] = scipy.special.softmax(total.numpy())
    np.testing.assert_allclose(saliency_of(module, inputs).detach().numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("coefficients_norm", ["softmax", "sparsemax", "entmax15"])
@pytest.mark.parametrize("reading", ["gains", "coefficients"])
@pytest.mark.parametrize("levels", SUBSETS, ids="+".join)
def test_every_subset_of_levels_starts_as_the_mean_of_all_attention_logits(
    levels: tuple[str, ...], reading: str, coefficients_norm: str
) -> None:
    module = module_of(reading, levels, coefficients_norm, seed=None)
    inputs = layers(5, groups=2)
    readings = readings_of(module, inputs)
    scores = module.scores(readings, PREDICTIONS)
    for row in range(len(VISIBLE)):
        logits = np.zeros((SIZES.layers, SIZES.heads, 6))
        for layer, head in np.ndindex(SIZES.layers, SIZES.heads):
            query = inputs[layer].query[row, head].numpy()
            key = inputs[layer].key[row, head // 2].numpy()
            visible = VISIBLE[row].numpy()
            logits[layer, head] = naive_mean_logits(query, key, SCALING, visible)
        np.testing.assert_allclose(
            scores[row].detach().numpy(), logits.mean((0, 1)), rtol=1e-9, atol=1e-10
        )


def test_head_coefficients_are_what_a_heads_logits_are_weighed_by() -> None:
    for reading, levels in CASES:
        if reading == "literal":
            continue
        module = module_of(reading, levels)
        found = module.head_coefficients().detach().numpy()
        np.testing.assert_allclose(found, naive_head_weights(module), rtol=1e-9)
        if reading == "coefficients":
            assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("saliency_norm", ["softmax", "sparsemax", "entmax15"])
@every_case
def test_the_saliency_is_a_point_of_the_simplex_over_the_explainable_tokens(
    reading: str, levels: tuple[str, ...], saliency_norm: str
) -> None:
    module = module_of(reading, levels, saliency_norm=saliency_norm)
    found = saliency_of(module, layers(11))
    np.testing.assert_allclose(found.sum(-1).detach().numpy(), 1, rtol=1e-12)
    assert (found >= 0).all()
    assert (found[~EXPLAINABLE] == 0).all()
    alone = int(EXPLAINABLE[2].nonzero())
    assert found[2, alone].item() == pytest.approx(1, abs=1e-12)


def test_one_explainable_token_gets_exactly_all_of_the_saliency() -> None:
    for reading in ("gains", "coefficients"):
        found = saliency_of(module_of(reading, ("feature", "head", "layer")), layers(2))
        assert found[2, 4].item() == 1.0


@pytest.mark.parametrize(
    ("reading", "levels"), [case for case in CASES if case[1]], ids=lambda part: str(part)
)
def test_the_gradient_reaches_every_coefficient_of_every_level(
    reading: str, levels: tuple[str, ...]
) -> None:
    module = module_of(reading, levels)
    target = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (saliency_of(module, layers(13)) * target).sum().backward()
    names = {name for name, _ in module.named_parameters()}
    expected = {level for level in levels if level != "feature"}
    expected |= {"feature_query", "feature_key"} if "feature" in levels else set()
    expected |= {"log_temperature"} if reading == "gains" else set()
    assert names == expected
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        assert gradient is not None, name
        if name in ("value", "readout"):
            assert (gradient[1] == 0).all(), "row 2, of class 1, has one explainable token"
            gradient = gradient[[0, 2]]
        assert torch.isfinite(gradient).all(), name
        assert (gradient != 0).all(), name


def test_masking_a_row_shorter_is_the_same_as_cutting_it() -> None:
    for reading, levels in CASES:
        module, inputs = module_of(reading, levels), layers(17)
        cut = [
            given._replace(
                query=given.query[1:2, :, :4],
                key=given.key[1:2, :, :4],
                value=given.value[1:2, :, :4],
                visible=given.visible[1:2, :4],
            )
            for given in inputs
        ]
        whole = saliency_of(module, inputs)[1:2, :4]
        readings = readings_of(module, cut, PLACES[1:2])
        alone = module(readings, EXPLAINABLE[1:2, :4], PREDICTIONS[1:2])
        torch.testing.assert_close(whole, alone, rtol=1e-9, atol=1e-12)


class ShapesSeen(TorchDispatchMode):
    """Records the shape of every tensor that any operation gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else (result,)
        self.shapes += [tuple(out.shape) for out in outputs if isinstance(out, Tensor)]
        return result

    def squares_of(self, length: int) -> list[tuple[int, ...]]:
        """Shapes that hold ``length`` twice, also where dimensions were folded together."""
        return [s for s in self.shapes if s.count(length) > 1 or length**2 in s]


LONG = 97
LONG_VISIBLE = torch.ones(2, LONG, dtype=torch.bool)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(
    ("reading", "levels"),
    [
        ("gains", LEVELS),
        ("coefficients", LEVELS),
        ("literal", ("feature", "head", "layer")),
        ("literal", ()),
    ],
)
def test_no_tensor_of_queries_by_tokens_ever_exists(
    reading: str, levels: tuple[str, ...], groups: int
) -> None:
    module = module_of(reading, levels)
    inputs = layers(1, groups, visible=LONG_VISIBLE)
    with ShapesSeen() as seen:
        saliency = saliency_of(module, inputs, LONG_VISIBLE, PREDICTIONS[:2])
        if levels:
            saliency[:, 0].sum().backward()
    assert any(LONG in shape for shape in seen.shapes), "nothing was recorded"
    assert seen.squares_of(LONG) == []


def test_the_search_for_such_a_tensor_finds_a_naive_implementation() -> None:
    given = layers(1, visible=LONG_VISIBLE)[0]
    with ShapesSeen() as seen:
        (given.query @ given.key.transpose(-1, -2)).mean(2)
    assert seen.squares_of(LONG) != []


def test_an_unknown_level_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        InterpretableAttention(SIZES, ("feature", "heads"))
    assert str(caught.value) == (
        "unknown level 'heads'. Did you mean 'head'? Choose from: "
        "feature, head, layer, readout, value."
    )


def test_an_unknown_reading_lists_the_choices() -> None:
    with pytest.raises(IvraError) as caught:
        InterpretableAttention(SIZES, reading="gain")
    assert str(caught.value) == (
        "unknown reading 'gain'. Did you mean 'gains'? Choose from: coefficients, gains, literal."
    )


@pytest.mark.parametrize("which", ["coefficients_norm", "saliency_norm"])
def test_an_unknown_normaliser_lists_the_choices(which: str) -> None:
    with pytest.raises(IvraError) as caught:
        InterpretableAttention(SIZES, **{which: "softmin"})
    assert str(caught.value) == (
        "unknown normaliser 'softmin'. Did you mean 'softmax'? "
        "Choose from: entmax15, softmax, sparsemax."
    )


def test_the_value_level_of_the_literal_reading_is_refused() -> None:
    with pytest.raises(IvraError) as caught:
        InterpretableAttention(SIZES, ("value",), "literal")
    assert str(caught.value) == (
        "the value level needs scores before the simplex: expected reading 'gains' or "
        "'coefficients', got 'literal'; choose another reading or drop the level"
    )


@pytest.mark.parametrize("level", ["value", "readout"])
def test_levels_of_a_class_need_predictions(level: str) -> None:
    module = module_of("gains", (level,))
    with pytest.raises(ValueError, match="need the predicted class of every row"):
        saliency_of(module, layers(1), predictions=None)


def test_the_readout_needs_a_pass_that_is_over() -> None:
    module = module_of("gains", ("readout",))
    unsettled = [module.read_layer(0, given) for given in layers(1)]
    with pytest.raises(ValueError, match="where the head reads: expected readings that"):
        module(unsettled, EXPLAINABLE, PREDICTIONS)


@pytest.mark.parametrize("additive", [False, True])
def test_attention_of_a_place_is_that_of_torch_under_the_same_mask(additive: bool) -> None:
    """A mask of the kernel's own, of either kind, with rows that differ."""
    given = layers(3, groups=2)[0]
    generator = torch.Generator().manual_seed(0)
    allowed = torch.rand(3, 1, 6, 6, generator=generator) < 0.6
    allowed = (allowed | torch.eye(6, dtype=torch.bool)) & VISIBLE[:, None, None]
    mask = torch.where(allowed, 0.0, -torch.inf).double() if additive else allowed
    attending = Attending(given.query, given.key, SCALING, VISIBLE, mask, causal=True)
    places = torch.tensor([[0, 3], [2, 1], [5, 3]])
    identity = torch.eye(6, dtype=torch.float64).expand(3, 4, 6, 6)
    whole = torch.nn.functional.scaled_dot_product_attention(
        given.query, given.key.repeat_interleave(2, 1), identity, attn_mask=mask, scale=SCALING
    )
    for row, place in np.ndindex(3, 2):
        torch.testing.assert_close(
            attending.given_by(places)[row, place], whole[row, :, places[row, place]]
        )


@every_case
def test_a_module_is_rebuilt_from_its_config_and_weights(
    reading: str, levels: tuple[str, ...]
) -> None:
    module = module_of(reading, levels, "entmax15", "sparsemax")
    config = json.loads(json.dumps(module.config()))
    sizes = AttentionSizes(**config.pop("sizes"))
    assert sizes == SIZES
    assert config["coefficients_norm"] == "entmax15"
    assert config["saliency_norm"] == "sparsemax"
    twin = InterpretableAttention(sizes, **config).double()
    twin.load_state_dict(module.state_dict())
    assert twin.config() == module.config()
    inputs = layers(19)
    assert torch.equal(saliency_of(twin, inputs), saliency_of(module, inputs))


def test_levels_may_be_named_in_any_order_and_twice() -> None:
    module = InterpretableAttention(SIZES, ("layer", "feature", "layer"))
    assert module.levels == ("feature", "layer")


def test_a_reading_holds_no_values_where_the_value_level_is_off() -> None:
    off = module_of("gains", ("head",)).read_layer(0, layers(1)[0])
    on = module_of("gains", ("value",)).read_layer(0, layers(1)[0])
    assert isinstance(off, LayerReading)
    assert off.values is None
    assert on.values is not None
    assert on.values.shape == (3, SIZES.classes, 6)
