"""Simulation accuracy: pairs of students that differ in what they are taught with alone."""

import copy
from collections.abc import Iterator, Sequence
from importlib import import_module

import pytest
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch, Item
from ivra.evaluation import Simulation, StudentPlan, simulation_accuracy
from ivra.explainers import RandomScores, UntrainedExplainer
from ivra.training import Encoder, TrainConfig, read_splits
from ivra.training.student import new_student

PLAN = StudentPlan(rows=32, epochs=1.0, lr=1e-3, beta=1.0, batch_size=16)
SEEDS = (11, 12)
EXPLAINERS = (UntrainedExplainer(), RandomScores())
Student = tuple[Backbone, InterpretableAttention]


@pytest.fixture
def rows(electra: Backbone) -> tuple[list[Item], list[Item]]:
    splits = read_splits(TrainConfig())
    encoder = Encoder(electra, 48, 16)
    return encoder.items(splits.train[:60]), encoder.items(splits.test[:24])


def fresh(teacher: Backbone, seed: int) -> Student:
    return new_student(TrainConfig(), teacher, seed)


def test_students_of_one_seed_start_alike_and_see_the_same_rows_in_the_same_order(
    electra: Backbone, rows: tuple[list[Item], list[Item]], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[tuple[int, torch.Tensor]] = []
    lessons: list[list[str]] = []

    def recorded(seed: int) -> Student:
        student, module = fresh(electra, seed)
        flat = [p.detach().flatten() for p in (*student.parameters(), *module.parameters())]
        starts.append((seed, torch.cat(flat)))
        lessons.append([])
        return student, module

    class Recorder(Encoder):
        def batches(
            self, items: Sequence[Item], shuffle_seed: int | None = None
        ) -> Iterator[Batch]:
            for batch in super().batches(items, shuffle_seed):
                if shuffle_seed is not None:
                    lessons[-1].extend(item.row.id for item in batch.items)
                yield batch

    monkeypatch.setattr(import_module("ivra.evaluation.simulation"), "Encoder", Recorder)
    called: list[tuple[str, int]] = []
    simulation_accuracy(
        electra,
        EXPLAINERS,
        *rows,
        recorded,
        PLAN,
        SEEDS,
        lambda name, seed: called.append((name, seed)),
    )
    assert called == [(name, seed) for seed in SEEDS for name in ("none", "untrained", "random")]
    assert [seed for seed, _ in starts] == [11] * 3 + [12] * 3
    for first in (0, 3):
        for other in (first + 1, first + 2):
            assert torch.equal(starts[first][1], starts[other][1])
            assert lessons[first] == lessons[other]
    assert not torch.equal(starts[0][1], starts[3][1])
    assert set(lessons[0]) != set(lessons[3])
    for seen in lessons:
        assert len(seen) == len(set(seen)) == PLAN.rows


def test_values_are_shares_and_repeat(
    electra: Backbone, rows: tuple[list[Item], list[Item]]
) -> None:
    def measure() -> dict[str, Simulation]:
        return simulation_accuracy(
            electra, EXPLAINERS, *rows, lambda seed: fresh(electra, seed), PLAN, SEEDS
        )

    torch.manual_seed(0)
    first = measure()
    torch.manual_seed(1)
    assert measure() == first
    assert list(first) == ["none", "untrained", "random"]
    for simulation in first.values():
        assert len(simulation.values) == len(SEEDS)
        assert all(0 <= value <= 1 for value in simulation.values)
        assert simulation.lower_quartile <= simulation.median <= simulation.upper_quartile


def test_the_teacher_simulates_itself(
    electra: Backbone, rows: tuple[list[Item], list[Item]]
) -> None:
    def itself(seed: int) -> Student:
        return copy.deepcopy(electra), fresh(electra, seed)[1]

    still = PLAN._replace(lr=0.0)
    found = simulation_accuracy(electra, EXPLAINERS, *rows, itself, still, (1,))
    assert {name: simulation.values for name, simulation in found.items()} == {
        "none": [1.0],
        "untrained": [1.0],
        "random": [1.0],
    }


def test_teaching_leaves_the_teacher_and_the_random_state_alone(
    electra: Backbone, rows: tuple[list[Item], list[Item]]
) -> None:
    before = copy.deepcopy(electra.state_dict())
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    simulation_accuracy(
        electra, EXPLAINERS[:1], *rows, lambda seed: fresh(electra, seed), PLAN, (3,)
    )
    assert torch.equal(torch.rand(3), expected)
    assert not electra.training
    for name, value in electra.state_dict().items():
        assert torch.equal(value, before[name])


def test_median_and_quartiles_are_interpolated() -> None:
    assert Simulation.of([0.0, 1.0]) == Simulation(0.5, 0.25, 0.75, [0.0, 1.0])
    assert Simulation.of([0.3]) == Simulation(0.3, 0.3, 0.3, [0.3])
