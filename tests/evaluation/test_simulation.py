"""Simulation accuracy: pairs of students that differ in what they are taught with alone."""

import copy
from collections.abc import Iterator, Sequence
from importlib import import_module

import pytest
import torch

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch, Item
from ivra.evaluation import Simulation, StudentPlan, predict, simulation_accuracy
from ivra.explainers import MarkedTokens, RandomScores, UntrainedExplainer
from ivra.training import Encoder, TrainConfig, read_splits
from ivra.training.student import Newcomers

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
    return Newcomers(TrainConfig(), teacher)(seed)


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
    def measure(untaught: bool = True) -> dict[str, Simulation]:
        return simulation_accuracy(
            electra,
            EXPLAINERS,
            *rows,
            lambda seed: fresh(electra, seed),
            PLAN,
            SEEDS,
            untaught=untaught,
        )

    torch.manual_seed(0)
    first = measure()
    torch.manual_seed(1)
    assert measure() == first
    assert list(first) == ["none", "untrained", "random"]
    taught = measure(untaught=False)
    assert taught == {name: first[name] for name in ("untrained", "random")}
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
    two = Simulation.of([[False, False], [True, True]])
    assert two == Simulation(0.5, 0.25, 0.75, [0.0, 1.0], ["00", "11"])
    one = Simulation.of([[True, False, False, True, False]])
    assert one == Simulation(0.4, 0.4, 0.4, [0.4], ["10010"])
    assert one.matrix().tolist() == [[True, False, False, True, False]]


@pytest.fixture
def torn(electra: Backbone, rows: tuple[list[Item], list[Item]]) -> Backbone:
    """A teacher that predicts each class on about half of the rows."""
    logits = predict(electra, rows[1])
    with torch.no_grad():
        electra.model.classifier.out_proj.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    return electra


def test_the_rows_that_are_right_are_those_on_which_student_and_teacher_agree(
    torn: Backbone, rows: tuple[list[Item], list[Item]]
) -> None:
    students: list[Backbone] = []

    def kept(seed: int) -> Student:
        student, module = fresh(torn, seed)
        students.append(student)
        return student, module

    found = simulation_accuracy(torn, EXPLAINERS[:1], *rows, kept, PLAN, SEEDS)
    expected = predict(torn, rows[1]).argmax(-1)
    order = [(seed, name) for seed in range(len(SEEDS)) for name in ("none", "untrained")]
    for (seed, name), student in zip(order, students, strict=True):
        agreed = (predict(student, rows[1]).argmax(-1) == expected).tolist()
        assert 0 < sum(agreed) < len(agreed)
        assert found[name].matrix()[seed].tolist() == agreed
        assert found[name].values[seed] == sum(agreed) / len(agreed)


def test_rows_without_a_mark_teach_nothing_but_the_prediction(
    electra: Backbone, rows: tuple[list[Item], list[Item]]
) -> None:
    """A student of true rationales, none of which is marked, is a student of none."""

    def students(items: list[Item]) -> list[torch.Tensor]:
        found: list[Backbone] = []

        def kept(seed: int) -> Student:
            student, module = fresh(electra, seed)
            found.append(student)
            return student, module

        simulation_accuracy(electra, [MarkedTokens()], items, rows[1], kept, PLAN, (5,))
        return [torch.cat([p.detach().flatten() for p in s.parameters()]) for s in found]

    none, true = students([item._replace(rationale=None) for item in rows[0]])
    torch.testing.assert_close(true, none, atol=1e-6, rtol=0)
    again, marked = students(rows[0])
    assert torch.equal(again, none)
    assert not torch.allclose(marked, none, atol=1e-4)
