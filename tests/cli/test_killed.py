"""A training that is killed at any moment is resumed to the same weights, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivra.data import read_rows

DRIVER = Path(__file__).with_name("killing.py")
MODULE = ("--criteria=suff,cons", "--finetune-epochs=1")
BOTH = (
    "--criteria=sim,comp",
    "--train=both",
    "--average=0.5",
    "--student-rows=8",
    "--student-count=2",
    "--student-life=3",
    "--option=sim.practice=1",
    "--finetune-epochs=1",
)
QUICK = (
    "--max-length=24",
    "--batch-size=4",
    "--max-steps=4",
    "--validations=2",
    "--validation-rows=4",
    "--checkpoint-every=1",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Hardly any rows."""
    made = tmp_path / "data"
    made.mkdir()
    for part, count in (("train", 16), ("dev", 4)):
        rows = [{"text": r.texts[0], "label": r.label} for r in read_rows("builtin", part)[:count]]
        lines = [json.dumps(row) + "\n" for row in rows]
        (made / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return made


def killed(folder: Path, data: Path, options: tuple[str, ...], kills: int) -> list[dict]:
    """What became of trainings with ``options`` that were killed and resumed."""
    command = [sys.executable, str(DRIVER), str(folder), "0", str(kills), f"--data={data}"]
    done = subprocess.run(
        [*command, *QUICK, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == kills + (kills >= 5)
    for run in found:
        assert run["differs"] == [], run
        assert run["whole"], "another run was touched"
        assert run["outcome"] == "finished" or run["latest"] == run["run"]
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_training_that_is_killed_is_resumed(tmp_path: Path, data: Path) -> None:
    found = killed(tmp_path, data, BOTH, 3)
    assert any(run["resumed"] for run in found)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("options", [MODULE, BOTH], ids=["module", "both"])
def test_a_training_that_is_killed_at_25_moments_is_resumed_each_time(
    tmp_path: Path, data: Path, options: tuple[str, ...]
) -> None:
    found = killed(tmp_path, data, options, 25)
    stages = {place["stage"] for run in found for place in run["resumed"]}
    assert stages == {"finetune", "criteria"}
    for run in found:  # shown with -s
        sys.stdout.write(f"{run['run']} {run['killed']} {run['outcome']} {run['resumed']}\n")
