"""Combiners against worked examples, loops by hand and the properties that torchjd states."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ivra.errors import IvraError
from ivra.training.aggregation import AGGREGATORS, aggregated
from ivra.training.combining import COMBINERS, Combined, Mixer, Mixing, check_mixing

FIRST, SECOND = [1.0, 0.0], [-1.0, 1.0]
"""Two gradients at odds: their product is -1."""
POINT = nn.Parameter(torch.zeros(1))


def at_odds(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows or (FIRST, SECOND), dtype=torch.float64)


class Plane:
    """Losses that are linear in a point, so that their gradients are given."""

    def __init__(self, *gradients: Sequence[float], start: Sequence[float] = (2.0, 3.0)) -> None:
        self.gradients = at_odds(*gradients)
        self.point = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.names = [f"c{place}" for place in range(len(self.gradients))]

    def losses(self) -> dict[str, Tensor]:
        return {n: g @ self.point for n, g in zip(self.names, self.gradients, strict=True)}

    def mixer(self, combine: str, weights: Sequence[float] = (1.0, 1.0), **rest: object) -> Mixer:
        mixing = Mixing(combine, **{"normalise": "none", **rest})  # type: ignore[arg-type]
        return Mixer(mixing, dict(zip(self.names, weights, strict=True)), self.names, [self.point])

    def slope(self, mixer: Mixer) -> list[float]:
        """What a backward pass leaves in the point."""
        self.point.grad = None
        mixer(self.losses()).loss.backward()
        assert self.point.grad is not None
        return self.point.grad.tolist()


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("sum", [0, 1]),
        # each without its part against the other, (1/2, 1/2) and (0, 1): their sum, their mean
        ("pcgrad", [0.5, 1.5]),
        ("upgrad", [0.25, 0.75]),
        # the shortest of t (1, 0) + (1 - t) (-1, 1): t = 3/5
        ("mgda", [0.2, 0.4]),
        # the mean (0, 1/2) has product 0 and 1/2 with them, so that it stays
        ("dualproj", [0, 0.5]),
        # the mean, and half its length towards (1, 0), which the mean helps least
        ("cagrad", [0.25, 0.5]),
    ],
)
def test_two_gradients_at_odds_by_hand(combine: str, expected: list[float]) -> None:
    plane = Plane()
    assert plane.slope(plane.mixer(combine)) == pytest.approx(expected, abs=2e-3)


def test_imtl_g_and_config_by_what_defines_them() -> None:
    """Equal projections on the unit gradients, of weights that sum to 1; equal cosines, and the
    length is the sum of the projections."""
    rows = at_odds([3, 0], [-1, 1])
    unit = rows / rows.norm(dim=1, keepdim=True)
    impartial = aggregated("imtl-g", rows)
    assert float(unit[0] @ impartial) == pytest.approx(float(unit[1] @ impartial), rel=1e-5)
    weights = torch.linalg.solve(rows.T, impartial)
    assert float(weights.sum()) == pytest.approx(1, rel=1e-5)
    free = aggregated("config", rows)
    assert float(unit[0] @ free) == pytest.approx(float(unit[1] @ free), rel=1e-5)
    assert float(unit[0] @ free) > 0
    assert float(free.norm()) == pytest.approx(float((rows @ (free / free.norm())).sum()), rel=1e-5)


def test_aligned_mtl_by_eigenvectors() -> None:
    """The rows are made orthogonal and as long as the least singular value, then averaged."""
    rows = np.array([[2.0, 0.0], [-1.0, 1.0]])
    left, sizes, right = np.linalg.svd(rows)
    expected = (left @ (sizes.min() * np.eye(2)) @ right).mean(0)
    found = aggregated("aligned-mtl", torch.tensor(rows))
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


numbers = st.floats(-3, 3, width=32).map(lambda v: round(v, 2))
pairs = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=2, max_size=4)


@settings(max_examples=40)
@given(rows=pairs, name=st.sampled_from(["upgrad", "dualproj", "mgda"]))
def test_no_criterion_gets_worse_with_those_that_promise_it(
    rows: list[list[float]], name: str
) -> None:
    """torchjd: these three are non-conflicting (up to what their solvers leave)."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    direction = aggregated(name, matrix)
    worst = float((matrix @ direction).min())
    assert worst >= -0.02 * float(matrix.norm(dim=1).max() ** 2)


@pytest.mark.parametrize("seed", range(10))
def test_upgrad_is_linear_in_the_length_of_each_gradient(seed: int) -> None:
    """torchjd: linear under scaling, which is what makes a weight a weight."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    one, two = (torch.rand(3, 1, generator=generator, dtype=torch.float64) + 0.2 for _ in range(2))
    parts = aggregated("upgrad", one * rows) + aggregated("upgrad", two * rows)
    torch.testing.assert_close(aggregated("upgrad", (one + two) * rows), parts, atol=2e-3, rtol=0)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_a_gradient_of_zero_asks_for_nothing(name: str) -> None:
    rows = at_odds(FIRST, SECOND, [0, 0])
    torch.testing.assert_close(aggregated(name, rows), aggregated(name, rows[:2]))
    assert aggregated(name, rows[[2, 0]]).tolist() == FIRST
    assert aggregated(name, rows[[2, 2]]).tolist() == [0, 0]
    assert not bool(aggregated(name, at_odds([math.inf, 0], SECOND)).isfinite().all())


@pytest.mark.parametrize("name", AGGREGATORS)
def test_gradients_that_agree_give_their_direction(name: str) -> None:
    direction = aggregated(name, at_odds([2, 4], [1, 2]))
    assert float(direction[1]) == pytest.approx(2 * float(direction[0]), rel=1e-4)
    assert float(direction[0]) > 0


def test_the_value_is_the_sum_and_other_parameters_follow_it() -> None:
    """A backbone that trains too; only the module's gradients are aggregated."""
    plane, other = Plane(), nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
    mixing = Mixing("pcgrad", normalise="none")
    weights = {"task": 1.0, "c0": 1.0, "c1": 2.0}
    mixer = Mixer(mixing, weights, plane.names, [plane.point], [other])
    own = plane.losses()
    losses = {"task": other**2, "c0": own["c0"] + 3 * other, "c1": own["c1"] + other}
    loss, gradients = mixer(losses)
    assert loss.item() == pytest.approx(25 + (2 + 15) + 2 * (1 + 5))
    loss.backward()
    assert other.grad is not None
    assert other.grad.item() == pytest.approx(10 + 3 + 2)
    assert plane.point.grad is not None
    assert plane.point.grad.tolist() == pytest.approx([0.5, 2.5])  # (1/2, 1/2) + 2 (0, 1)
    assert gradients is not None
    assert gradients["norms"] == pytest.approx({"c0": 1, "c1": math.sqrt(2)})


@pytest.mark.parametrize("combine", COMBINERS)
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_one_loss_alone_is_its_weight_times_itself(combine: str, weight: float) -> None:
    point = nn.Parameter(torch.randn(7))
    mixer = Mixer(Mixing(combine, bound={"c0": 0.1}), {"c0": weight}, ["c0"], [point])
    loss, gradients = mixer({"c0": point.exp().mean()})
    loss.backward()
    assert gradients is None
    assert list(mixer.parameters()) == []
    alone = nn.Parameter(point.detach().clone())
    torch.stack([weight * alone.exp().mean()]).sum().backward()
    assert torch.equal(point.grad, alone.grad)  # type: ignore[arg-type]


def test_the_gradient_of_a_sum_is_to_the_bit_what_it_is_without_measuring() -> None:
    torch.manual_seed(0)
    point, weights = nn.Parameter(torch.randn(50)), {"a": 1.0, "b": 0.5, "c": 2.0}

    def losses(at: nn.Parameter) -> dict[str, Tensor]:
        saliency = at.softmax(0)
        return {"a": saliency.square().sum(), "b": -saliency.log().mean(), "c": at.sin().mean()}

    mixer = Mixer(Mixing(), weights, list(weights), [point])
    mixer(losses(point)).loss.backward()
    plain = nn.Parameter(point.detach().clone())
    torch.stack([weights[name] * loss for name, loss in losses(plain).items()]).sum().backward()
    assert torch.equal(point.grad, plain.grad)  # type: ignore[arg-type]


def test_gradients_of_the_sum_are_told_without_weights() -> None:
    plane = Plane(FIRST, SECOND, [0, 0])
    found = plane.mixer("sum", weights=(1.0, 5.0, 1.0))(plane.losses()).gradients
    assert found is not None
    assert found["norms"] == pytest.approx({"c0": 1, "c1": math.sqrt(2), "c2": 0})
    assert found["cosines"] == {
        "c0,c1": pytest.approx(-1 / math.sqrt(2)),
        "c0,c2": None,
        "c1,c2": None,
    }


def scaled_by_hand(sizes: Sequence[float]) -> list[float]:
    running, found = 0.0, []
    for number, size in enumerate(sizes, start=1):
        running = 0.9 * running + 0.1 * size
        found.append(running / (1 - 0.9**number))
    return found


def test_losses_are_divided_by_the_running_mean_of_their_size() -> None:
    values = {"a": [2.0, 4.0, -1.0], "b": [0.1, 0.1, 0.1]}
    mixer = Mixer(Mixing(normalise="loss"), {"a": 1.0, "b": 3.0}, ["a", "b"], [POINT])
    scales = {name: scaled_by_hand([abs(v) for v in own]) for name, own in values.items()}
    assert scales["b"] == pytest.approx([0.1] * 3)
    for step in range(3):
        found = mixer({name: torch.tensor(own[step]) for name, own in values.items()}).loss
        expected = values["a"][step] / scales["a"][step] + 3 * values["b"][step] / 0.1
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_are_divided_by_the_running_mean_of_their_norm() -> None:
    """So that aggregators see them at one length, whatever the units of the losses."""
    small, large = Plane([1, 0], [-1, 1]), Plane([1000, 0], [-0.001, 0.001])
    for combine in ("upgrad", "mgda", "cagrad", "sum"):
        slopes = [
            plane.slope(plane.mixer(combine, normalise="gradient")) for plane in (small, large)
        ]
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-3, abs=1e-4), combine
    assert [Mixing(name).scale for name in ("sum", "uncertainty", "constrained", "mgda")] == [
        *("none", "none", "none", "gradient")
    ]


def test_weights_go_to_their_end_in_a_straight_line() -> None:
    mixing = Mixing(final_weights={"b": 0.0})
    mixer = Mixer(mixing, {"a": 1.0, "b": 2.0}, ["a", "b"], [POINT], steps=5)
    seen = []
    for _ in range(7):
        seen.append(mixer.weights_now())
        mixer({"a": torch.tensor(1.0), "b": torch.tensor(1.0)})  # a step of two parts
        mixer({"a": torch.tensor(1.0), "b": torch.tensor(1.0)})
        mixer.advance()
    assert [weights["b"] for weights in seen] == pytest.approx([2, 1.5, 1, 0.5, 0, 0, 0])
    assert {weights["a"] for weights in seen} == {1.0}


def test_uncertainty_against_a_loop_by_hand() -> None:
    """Kendall et al.: sum of (exp(-s) L + s) / 2, gradient descent on the point and on s."""
    plane = Plane([0.3, 0.1], [0.2, 1.0])
    mixer = plane.mixer("uncertainty", weights=(1.0, 2.0))
    optimizer = torch.optim.SGD([plane.point, *mixer.parameters()], lr=0.1)
    point, s = [2.0, 3.0], [0.0, 0.0]
    for _ in range(20):
        optimizer.zero_grad()
        loss = mixer(plane.losses()).loss
        loss.backward()
        optimizer.step()
        values = [
            w * sum(g * p for g, p in zip(row, point, strict=True))
            for w, row in zip((1, 2), plane.gradients.tolist(), strict=True)
        ]
        shares = [math.exp(-v) / 2 for v in s]
        total = sum(a * v + b / 2 for a, v, b in zip(shares, values, s, strict=True))
        assert loss.item() == pytest.approx(total, rel=1e-6)
        rows = [[w * g for g in row] for w, row in zip((1, 2), plane.gradients.tolist(),
                                                       strict=True)]  # fmt: skip
        point = [
            p - 0.1 * sum(a * row[i] for a, row in zip(shares, rows, strict=True))
            for i, p in enumerate(point)
        ]
        s = [b - 0.1 * (0.5 - a * v) for a, v, b in zip(shares, values, s, strict=True)]
    assert plane.point.tolist() == pytest.approx(point, rel=1e-5)
    assert next(mixer.parameters()).tolist() == pytest.approx(s, rel=1e-5)


def test_uncertainty_bounds_the_weight_of_a_loss_below_zero() -> None:
    mixer = Plane().mixer("uncertainty")
    with torch.no_grad():
        next(mixer.parameters()).copy_(torch.tensor([-50.0, 50.0]))
    loss = mixer({"c0": torch.tensor(-1.0), "c1": torch.tensor(1.0)}).loss
    assert loss.item() == pytest.approx((-math.exp(4) - 4 + math.exp(-4) + 4) / 2, rel=1e-5)


def test_constrained_against_a_loop_by_hand() -> None:
    """Ferreira et al.: the multiplier rises by RMSprop while the bound is broken, never below 0."""
    plane = Plane([1, 0], [0, 1], start=(1.0, 1.0))
    mixer = plane.mixer("constrained", bound={"c1": 0.4}, bound_lr=0.1)
    multiplier, square, value = 1.0, 0.0, 1.0
    for _ in range(60):
        assert plane.slope(mixer) == pytest.approx([1, multiplier], rel=1e-5)
        over = value - 0.4
        square = 0.99 * square + 0.01 * over**2
        multiplier = max(0.0, multiplier + 0.1 * over / (math.sqrt(square) + 1e-8))
        value -= 0.02
        with torch.no_grad():
            plane.point[1] -= 0.02
    assert value < 0.4
    assert mixer.combiner.multipliers.tolist() == pytest.approx([multiplier], rel=1e-5)


def test_a_lagrangian_has_the_violation_in_it() -> None:
    plane = Plane([1, 0], [0, 1])
    mixer = plane.mixer("constrained", weights=(2.0, 1.0), bound={"c1": 0.5})
    assert mixer(plane.losses()).loss.item() == pytest.approx(2 * 2 + 1 * (3 - 0.5))


@pytest.mark.parametrize("combine", COMBINERS)
def test_a_mixer_that_is_read_back_goes_on_as_if_nothing_had_been(combine: str) -> None:
    """All that it has learnt is in its state, tensors alone."""

    def steps(mixer: Mixer, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
        found = []
        for _ in range(count):
            optimizer.zero_grad()
            loss = mixer(plane.losses()).loss
            loss.backward()
            optimizer.step()
            mixer.advance()
            found.append(loss.item())
        return found

    def made() -> tuple[Mixer, torch.optim.Optimizer]:
        mixing = Mixing(combine, "gradient", {"c0": 0.1}, {"c1": 0.5})
        mixer = Mixer(mixing, {"c0": 1.0, "c1": 2.0}, plane.names, [plane.point], steps=6)
        return mixer, torch.optim.SGD([plane.point, *mixer.parameters()], lr=0.05)

    torch.manual_seed(0)
    plane = Plane(start=(3.0, 5.0))
    mixer, optimizer = made()
    steps(mixer, optimizer, 3)
    state = {name: value.clone() for name, value in mixer.state_dict().items()}
    assert all(isinstance(value, Tensor) for value in state.values())
    at = plane.point.detach().clone()
    rest = steps(mixer, optimizer, 3)
    with torch.no_grad():
        plane.point.copy_(at)
    again, optimizer = made()
    again.load_state_dict(state)
    assert steps(again, optimizer, 3) == pytest.approx(rest, rel=1e-6)


@pytest.mark.parametrize(
    ("mixing", "criteria", "task", "message"),
    [
        (
            Mixing("pcgrda"),
            ["comp", "suff"],
            False,
            "unknown combiner 'pcgrda'. Did you mean 'pcgrad'? Choose from: "
            + ", ".join(sorted(COMBINERS))
            + ".",
        ),
        (
            Mixing(bound={"suff": 0.1}),
            ["comp", "suff"],
            False,
            "combine is sum, which has no use for a bound: expected constrained, or no bound",
        ),
        (
            Mixing("constrained", bound={"sim": 0.1}),
            ["comp", "suff"],
            False,
            "unknown criterion with a bound (not in criteria) 'sim'. Choose from: comp, suff.",
        ),
        (
            Mixing(final_weights={"sufff": 0.1}),
            ["comp", "suff"],
            False,
            "unknown criterion with a final weight (not in criteria) 'sufff'. Did you mean "
            "'suff'? Choose from: comp, suff.",
        ),
        (
            Mixing("constrained"),
            ["comp", "suff"],
            False,
            "combine is constrained, but no criterion has a bound: expected one, as in --bound "
            "suff=0.05",
        ),
        (
            Mixing("constrained", bound={"comp": 1.0, "suff": 1.0}),
            ["comp", "suff"],
            False,
            "every criterion has a bound, so that there is nothing to minimise: leave one of "
            "comp, suff without",
        ),
    ],
)
def test_what_cannot_be_mixed_is_one_line(
    mixing: Mixing, criteria: list[str], task: bool, message: str
) -> None:
    with pytest.raises(IvraError) as caught:
        check_mixing(mixing, criteria, task)
    assert str(caught.value) == message


def test_one_criterion_and_a_task_can_be_constrained() -> None:
    check_mixing(Mixing("constrained", bound={"suff": 0.1}), ["suff"], task=True)
    check_mixing(Mixing("constrained", bound={"suff": 0.1}), ["suff"], task=False)  # is a sum
    for name in COMBINERS:
        if name != "constrained":
            check_mixing(Mixing(name), ["suff"], task=False)


def test_combinations_of_three_add_up() -> None:
    """Every pair stands once, in the order of the criteria."""
    plane = Plane(FIRST, SECOND, [1, 1])
    combined = plane.mixer("upgrad", weights=(1.0, 1.0, 1.0))(plane.losses())
    assert isinstance(combined, Combined)
    assert combined.gradients is not None
    names: Mapping[str, float | None] = combined.gradients["cosines"]
    assert list(names) == [",".join(pair) for pair in itertools.combinations(plane.names, 2)]
