"""A study that is run: what its files hold, going on after a kill, failures, estimates."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ivra.errors import IvraError
from ivra.evaluation import evaluate
from ivra.studies import Study, StudyResult, grid, plan, run_study, tables_of
from ivra.training import load_run, make_config

Finished = tuple[StudyResult, Path]
ROOT = Path(__file__).resolve().parents[2]


def files(output: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (output / "cells").glob("*.json")}


def test_every_cell_has_a_file_that_says_where_it_comes_from(
    finished: Finished, sets: Path
) -> None:
    found, output = finished
    assert found.failures == {}
    assert len(files(output)) == len(found.results) == 2 * 2 * 2
    for name, result in found.results.items():
        text = (output / "cells" / f"{name}.json").read_text(encoding="utf-8")
        assert json.loads(text) == result
        for folder in (output, sets, sets.parent, Path.cwd()):
            assert str(folder.resolve()) not in text
        assert result["seed"] == result["config"]["seed"] == int(name[-1])
        assert result["versions"]["ivra"]
        assert len(result["data"]["sha256"]) >= 16
        assert result["data"]["source"] in ("$IVRA_DATA/little", "$IVRA_DATA/other")
        assert result["cell"]["seconds"]["evaluation"] >= 0
        make_config(result["config"])
    record = json.loads((output / "study.json").read_text(encoding="utf-8"))
    assert record["cells"] == list(found.results)
    one = found.results["tiny-electra_little_smat_comp_on-other-seed1"]
    assert one["config"]["model"] == "tiny-electra fine-tuned on little, seed 1"
    assert one["cell"]["base"]["model"] == "tiny-electra"
    assert one["cell"]["base"]["data"] == "$IVRA_DATA/little"


def test_a_figure_of_the_table_is_that_of_the_run(finished: Finished) -> None:
    """Read from the run's own folder again, without the study."""
    found, output = finished
    cell = next(c for c in found.matrix.cells if c.method == "smat" and "other" in c.data)
    run = load_run(output / "runs" / str(cell.cell.run))
    again = evaluate(run, cell.cell.evaluation)["figures"]["ivra"]["comp"]  # type: ignore[index]
    table = tables_of(found)[0]
    assert [column.data for column in table.columns[::3]] == ["little → little", "little → other"]
    smat = next(row for row in table.rows if row.name == "SMaT")
    assert smat.cells[3].values[0] == pytest.approx(again, abs=1e-7)
    assert smat.cells[3].count == 2
    step = table.rows[0].cells[2]
    assert step.mean is None  # an explainer without training has no steps
    assert smat.cells[2].mean is not None


def test_the_same_model_is_explained_by_all(finished: Finished) -> None:
    found, _ = finished
    accuracy = {(c.cell.training.seed, c.data): set() for c in found.matrix.cells}  # type: dict[tuple[int, str], set[float]]
    for c in found.matrix.cells:
        value = found.results[c.cell.name]["accuracy"]["accuracy"]
        accuracy[c.cell.training.seed, c.data].add(value)
    assert all(len(values) == 1 for values in accuracy.values())


def test_what_is_finished_is_not_run_again(
    finished: Finished, sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, output = finished
    before = files(output)
    monkeypatch.setattr(grid, "train", None)
    monkeypatch.setattr(grid, "evaluate", None)
    again = run_study(found.study, output, data_folder=sets)
    assert again.results == found.results
    assert files(output) == before


def test_cells_from_before_an_option_are_finished(
    finished: Finished, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of training and of evaluation; under another value than its default they are refused."""
    found, output = finished
    shutil.copytree(output / "cells", tmp_path / "cells")
    for path in (tmp_path / "cells").glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        del result["config"]["skip_nonfinite"], result["cell"]["evaluation"]["untaught"]
        path.write_text(json.dumps(result), encoding="utf-8")
    monkeypatch.setattr(grid, "train", None)
    monkeypatch.setattr(grid, "evaluate", None)
    runs = output / "runs"
    again = run_study(found.study, tmp_path, data_folder=sets, runs=runs)
    for name, result in found.results.items():
        assert again.results[name]["figures"] == result["figures"]
    values = {"evaluation": {**found.study.evaluation, "untaught": False}}
    other = found.study.model_copy(update=values)
    with pytest.raises(IvraError, match="untaught true, and false is asked for now"):
        run_study(other, tmp_path, data_folder=sets, runs=runs)


def test_studies_can_share_their_runs(
    finished: Finished, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, output = finished
    monkeypatch.setattr(grid, "train", None)  # nothing is left to train
    again = run_study(found.study, tmp_path, data_folder=sets, runs=output / "runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells", "study.json"]
    for name, result in found.results.items():
        assert again.results[name]["figures"] == result["figures"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"training": {"lr": 0.3}}, "training.lr 0.02, and 0.3 is asked for now"),
        ({"training": {"finetune_epochs": 2}}, "training.finetune_epochs 1.0, and 2.0 is"),
        ({"evaluation": {"rows": 3}}, "evaluation.rows 4, and 3 is asked for now"),
        ({"evaluation": {"aopc": {"bins": [50.0]}}}, "evaluation.aopc.bins null, and [50.0] is"),
    ],
)
def test_another_configuration_is_refused_and_nothing_overwritten(
    finished: Finished,
    sets: Path,
    small: Callable[..., Study],
    changes: dict[str, dict[str, object]],
    key: str,
) -> None:
    found, output = finished
    before = files(output)
    values = {name: {**getattr(found.study, name), **own} for name, own in changes.items()}
    with pytest.raises(IvraError) as error:
        run_study(small(**values), output, data_folder=sets)
    assert key in str(error.value)
    assert "cells/tiny-electra_little_" in str(error.value)
    assert files(output) == before


def test_a_run_of_another_configuration_is_refused_too(
    small: Callable[..., Study], sets: Path, finished: Finished, tmp_path: Path
) -> None:
    """Trained, but killed before it was judged: there is no JSON to compare with."""
    _, output = finished
    name = "tiny-electra_little_base-seed0"
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).symlink_to(output / "runs" / name)
    values = {**small().training, "clip": 0.5}
    with pytest.raises(IvraError, match=r"base-seed0 was made with clip 1\.0, and 0\.5 is asked"):
        run_study(small(training=values), tmp_path, data_folder=sets)


def test_a_cell_that_fails_is_told_of_and_the_others_go_on(
    small: Callable[..., Study], sets: Path, finished: Finished, tmp_path: Path
) -> None:
    data = {"absent": {}, "little": {}}
    study = small(data=data, seeds=[0], methods=["smat"], columns=["comp"])
    (sets / "absent").mkdir(exist_ok=True)
    found = run_study(study, tmp_path / "s", data_folder=sets)
    assert set(found.failures) == {
        "tiny-electra_absent_static-seed0",
        "tiny-electra_absent_smat_comp-seed0",
    }
    assert all("absent" in reason for reason in found.failures.values())
    assert len(found.results) == 2
    table = tables_of(found)[0]
    assert table.printed(0, 0) is None
    assert table.printed(0, 1) is not None


def test_the_estimate_is_what_finished_cells_took(
    finished: Finished, sets: Path, small: Callable[..., Study], tmp_path: Path
) -> None:
    found, output = finished
    assert all(cell.finished for cell in plan(found.study, output, sets))
    more = plan(small(seeds=[0, 1, 2]), output, sets)
    left = [cell for cell in more if not cell.finished]
    assert len(left) == 4
    smat = [
        r["cell"]["seconds"]["training"] + r["cell"]["seconds"]["evaluation"]
        for name, r in found.results.items()
        if "smat" in name and "on-little" in name
    ]
    one = next(cell for cell in left if "smat" in cell.name and "on-little" in cell.name)
    assert one.seconds == pytest.approx(sum(smat) / 2)
    tuned = [
        json.loads((output / "runs" / f"tiny-electra_little_base-seed{s}" / "run.json").read_text())
        for s in (0, 1)
    ]
    static = [
        r["cell"]["seconds"]["evaluation"]
        for name, r in found.results.items()
        if "static_on-little" in name
    ]
    first = sum(static) / 2 + sum(record["seconds"] for record in tuned) / 2
    assert left[0].seconds == pytest.approx(first)
    fresh = plan(small(), tmp_path / "nothing", sets)
    assert {cell.seconds for cell in fresh} == {None}
    assert not (tmp_path / "nothing").exists()


def test_a_study_that_was_killed_goes_on_where_it_was(
    small: Callable[..., Study], sets: Path, tmp_path: Path
) -> None:
    study = small(data={"little": {}}, seeds=[0, 1], columns=["comp"])
    values = {**study.model_dump(mode="json"), "data": ["little"]}
    spec, output = tmp_path / "small.yaml", tmp_path / "out"
    spec.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = [sys.executable, "-m", "ivra", "study", str(spec), "--output", str(output)]
    environment = {**os.environ, "IVRA_DATA": str(sets), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        until = time.monotonic() + 300
        while not files(output) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    before = files(output)
    assert 1 <= len(before) < 4
    found = run_study(study, output, data_folder=sets)
    after = files(output)
    assert len(after) == len(found.results) == 4
    assert {name: after[name] for name in before} == before
    assert list(output.glob("cells/.*")) == []
