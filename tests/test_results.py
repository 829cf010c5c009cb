"""Every figure in the README stands in a result file of the benchmarks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_tables_of_the_readme_are_those_of_the_result_files() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or "run python benchmarks/tables.py"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks/results/large").glob("*.json")))
def test_large_models_took_the_passes_that_the_criteria_need(path: Path) -> None:
    for criteria, found in json.loads(path.read_text())["criteria"].items():
        both, alone = found["floor"]["with_backward"], found["floor"]["forward_alone"]
        assert found["passes"] == {"forward": both + alone, "backward": both}, criteria


@pytest.mark.slow
def test_the_benchmark_of_large_models_runs(tmp_path: Path) -> None:
    shape = "--layers 2 --hidden 32 --intermediate 64 --heads 2 --key-value-heads 1"
    rest = "--vocabulary 300 --rows 4 --length 16 --steps 1 --bits 4"
    command = [sys.executable, str(ROOT / "benchmarks" / "large.py"), *shape.split(), *rest.split()]
    subprocess.run([*command, "--json", str(tmp_path / "x.json")], check=True, capture_output=True)
    test_large_models_took_the_passes_that_the_criteria_need(tmp_path / "x.json")
