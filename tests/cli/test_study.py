"""``ivra study``: a preset from start to tables, a file, flags, failures and dry runs."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Call = Callable[..., Result]

QUICK = (
    "--seeds=0",
    "--train=finetune_epochs=1",
    "--train=max_steps=1",
    "--train=max_length=32",
    "--eval=rows=4",
)


@pytest.fixture(scope="module")
def table2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The preset at tiny scale, with less fine-tuning."""
    from click.testing import CliRunner

    from ivra.cli.main import main

    output = tmp_path_factory.mktemp("studies") / "table2"
    arguments = ["study", "table2", "--scale=tiny", *QUICK, f"--output={output}"]
    return CliRunner().invoke(main, arguments), output


def test_a_table_of_the_paper_from_start_to_tables(table2: tuple[Result, Path]) -> None:
    result, output = table2
    assert result.exit_code == 0, result.output
    lines = (output / "tables.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    assert len(rows) == 9
    assert {row["figure"] for row in rows} == {"comp"}
    static = json.loads((output / "cells" / "tiny-electra_builtin_static-seed0.json").read_text())
    lime = next(row for row in rows if row["explanation"] == "LIME")
    assert float(lime["mean"]) == static["figures"]["lime"]["comp"]
    for name in ("SMaT", "IvRA-softmax", "IvRA-sparsemax", "last-layer attention"):
        assert name in result.stdout
        assert f"| {name} | " in (output / "tables.md").read_text(encoding="utf-8")
        assert f"{name} & " in (output / "tables.tex").read_text(encoding="utf-8")
    assert (output / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (output / "figure.svg").read_text(encoding="utf-8")


def test_once_more_runs_nothing_and_writes_the_same(
    table2: tuple[Result, Path], call: Call
) -> None:
    first, output = table2
    before = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    result = call("study", "table2", "--scale=tiny", *QUICK, f"--output={output}")
    assert result.exit_code == 0
    assert "static-seed0  " in first.stdout
    assert "static-seed0  " not in result.stdout
    after = {path.name: path.read_bytes() for path in output.iterdir() if path.is_file()}
    assert after == before


def test_a_dry_run_prints_cells_and_times_and_writes_nothing(
    table2: tuple[Result, Path], call: Call, tmp_path: Path
) -> None:
    _, output = table2
    more = [*QUICK, "--seeds=0,1", f"--output={output}", "--dry-run"]
    lines = call("study", "table2", "--scale=tiny", *more).stdout.splitlines()
    assert lines[0] == "tiny-electra_builtin_static-seed0  finished"
    assert lines[5].startswith("tiny-electra_builtin_static-seed1  about ")
    assert lines[-1].startswith("5 of 10 cells to run, about ")
    fresh = call("study", "table2", "--scale=tiny", f"--output={tmp_path}/new", "--dry-run").stdout
    assert "time unknown for 10, none of their kind is finished" in fresh
    assert list(tmp_path.iterdir()) == []


def test_another_configuration_is_one_line(table2: tuple[Result, Path], call: Call) -> None:
    _, output = table2
    given = [*QUICK, "--train=lr=0.5", f"--output={output}"]
    result = call("study", "table2", "--scale=tiny", *given)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "was made with training.lr 0.02, and 0.5 is asked for now" in result.stderr


def test_flags_alone_make_a_study_and_a_failure_is_told_of_last(
    call: Call, folder: Path, tmp_path: Path
) -> None:
    """The folder's rows have a rationale, the copy's have none."""
    bare = tmp_path / "sets" / "bare"
    bare.mkdir(parents=True)
    for part in ("train", "dev", "test"):
        lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()[:16]
        rows = [{k: v for k, v in json.loads(line).items() if k != "rationale"} for line in lines]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (bare / f"{part}.jsonl").write_text(text, encoding="utf-8")
    result = call(
        "study",
        f"--data=bare,{folder}",
        f"--data-folder={bare.parent}",
        "--methods=ivra-value",
        "--explainers=random",
        "--criteria=suff",
        "--columns=plausibility",
        "--eval=resamples=0",
        "--train=validation_rows=8",
        *QUICK,
        f"--output={tmp_path}/out",
    )
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("failed: tiny-electra_bare_static-seed0: metric 'plausibility'")
    assert lines[-1].startswith("ivra: 2 of 4 cells failed: ")
    assert "–" in result.stdout
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["tabel2"], ["unknown preset (or YAML file) 'tabel2'", "table2"]),
        (["missing.yaml"], ["cannot read missing.yaml"]),
        (["--scale=tiny"], ["--scale is for presets"]),
        (["--seeds=one"], ["--seeds is 'one': expected numbers"]),
        (["--train=epochs"], ["--train epochs: expected key=value"]),
        (["--train=epoch=1"], ["unknown key in command line 'epoch'"]),
        (["--eval=rows=none"], ["rows is 'none'"]),
        (["table2"], ["table2 needs the data sets imdb, esnli, squad"]),
    ],
)
def test_bad_input_is_one_line(
    call: Call, arguments: list[str], pieces: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IVRA_DATA", raising=False)
    result = call("study", *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    for piece in pieces:
        assert piece in result.stderr


def test_a_dry_run_at_full_scale_names_every_set(call: Call, tmp_path: Path) -> None:
    given = ["table2", "--model=tiny-electra", f"--data-folder={tmp_path}", "--dry-run"]
    result = call("study", *given, f"--output={tmp_path}/out")
    assert result.exit_code == 0
    for name in ("imdb", "esnli", "squad"):
        assert f"tiny-electra_{name}_smat_comp-seed2" in result.stdout
