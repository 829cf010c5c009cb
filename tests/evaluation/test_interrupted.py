"""An evaluation that is interrupted gives no figure."""

from collections.abc import Callable, Iterator

import pytest

from ivra.data import Batch
from ivra.evaluation import EvalConfig, evaluate
from ivra.evaluation import simulation as simulation_module
from ivra.training import Endless, Run


def test_a_student_that_is_cut_short_counts_for_nothing(
    make_run: Callable[[list[dict]], Run], records: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(epoch: Callable[[int], Iterator[Batch]]) -> Endless[Batch]:
        def once(number: int) -> Iterator[Batch]:
            if number:
                raise KeyboardInterrupt
            return epoch(number)

        return Endless(once)

    monkeypatch.setattr(simulation_module, "endless", cut)
    config = EvalConfig(metrics=("sim",), explainers=(), students=1, student_epochs=3.0)
    with pytest.raises(KeyboardInterrupt):
        evaluate(make_run(records), config)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"seed is {seed}: expected a number from 0 to 429496729"):
        EvalConfig(seed=seed)
