"""Cells of a study: one JSON each, and none of a run that was cut short."""

import json
from pathlib import Path

import pytest

from ivra.data import read_rows
from ivra.evaluation import EvalConfig
from ivra.studies import Cell, grid, run_cell
from ivra.training import Hooks, Run, TrainConfig, train


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A cell of a second."""
    data = tmp_path / "data"
    data.mkdir()
    for part in ("train", "dev", "test"):
        rows = [{"text": r.texts[0], "label": r.label} for r in read_rows("builtin", part)[:16]]
        lines = [json.dumps(row) + "\n" for row in rows]
        (data / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    training = TrainConfig(
        criteria="suff",
        data=str(data),
        max_length=32,
        finetune_epochs=1.0,
        max_steps=1,
        validations=1,
    )
    return Cell("small", training, EvalConfig(metrics=("accuracy",), rows=4))


class Interrupt(Hooks):
    """Ctrl-C when stage 2 begins."""

    def on_begin(self, stage: str, steps: int) -> None:
        if stage == "criteria":
            raise KeyboardInterrupt


def test_an_interrupted_cell_is_not_judged_and_is_trained_again(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(
        config: TrainConfig, *, output: Path, name: str, device: str, hooks: tuple[Hooks, ...]
    ) -> Run:
        return train(config, output=output, name=name, device=device, hooks=(*hooks, Interrupt()))

    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    with monkeypatch.context() as context:
        context.setattr(grid, "train", cut)
        with pytest.raises(KeyboardInterrupt, match="will be trained again"):
            run_cell(cell, results, runs)
    assert list(results.iterdir()) == []
    assert json.loads((runs / "small-seed0" / "run.json").read_text())["interrupted"] is True
    result = run_cell(cell, results, runs)
    assert result["training"]["interrupted"] is False
    assert json.loads((results / "small-seed0.json").read_text()) == result
    monkeypatch.setattr(grid, "train", None)  # a finished run is read back
    (results / "small-seed0.json").unlink()
    assert run_cell(cell, results, runs)["figures"] == result["figures"]
