"""``ivra sweep`` from start to pictures, at tiny scale, and preferences on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ivra.cli.main import main

Call = Callable[..., Result]

QUICK = ("--scale=tiny", "--seeds=0", "--train=max_length=24", "--train=student_count=1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """Two criteria, with every way of mixing that has something special about it."""
    output = tmp_path_factory.mktemp("sweeps") / "one"
    ways = "--combine=sum,upgrad,pcgrad:warm,preference"
    arguments = ["sweep", "--criteria=sim,suff", ways, *QUICK, f"--output={output}"]
    return CliRunner().invoke(main, arguments), output


def test_a_sweep_from_start_to_pictures(swept: tuple[Result, Path]) -> None:
    result, output = swept
    assert result.exit_code == 0, result.output
    assert len(list((output / "cells").iterdir())) == 3 + 1 + 1 + 3
    for name in ("arg.png", "front.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    (model,) = json.loads((output / "sweep.json").read_text(encoding="utf-8"))["models"]
    assert model["methods"] == ["sum", "upgrad", "pcgrad:warm", "preference"]
    assert len(model["arg"]) == 2 * (3 + 1 + 1 + 3)
    zero = [g for g in model["arg"] if g["method"] == "sum" and g["criteria"] == [g["criterion"]]]
    assert [g["arg"] for g in zero if g["reason"] is None] == [0.0] * len(zero)
    plain, *others = model["accuracy"]
    assert plain["name"] == "plain fine-tuned"
    assert {row["mean"] for row in others} == {plain["mean"]}, "the model was left alone"
    for text in ("sim + suff", "plain fine-tuned", "ARG in percent against one criterion alone"):
        assert text in result.stdout
    assert any(line.startswith("upgrad: ARG at least 0 in ") for line in result.stdout.splitlines())
    runs = {path.name for path in (output / "runs").iterdir()} - {"latest"}
    assert len(runs) == 1 + 3 + 1 + 1 + 1, "preferences are one run"


def test_a_warm_start_is_told_of_without_folders_of_this_machine(
    swept: tuple[Result, Path],
) -> None:
    _, output = swept
    cell = output / "cells" / "tiny-electra_builtin_pcgrad-warm_sim-suff-seed0.json"
    config = json.loads(cell.read_text(encoding="utf-8"))["config"]
    assert config["init_module"] == [
        f"the run tiny-electra_builtin_sum_{name}-seed0" for name in ("sim", "suff")
    ]


def test_once_more_runs_nothing(swept: tuple[Result, Path], call: Call) -> None:
    _, output = swept
    before = {p.name: p.read_bytes() for p in output.iterdir() if p.is_file()}
    ways = "--combine=sum,upgrad,pcgrad:warm,preference"
    given = ["sweep", "--criteria=sim,suff", ways, *QUICK, f"--output={output}"]
    assert call(*given).exit_code == 0
    assert {p.name: p.read_bytes() for p in output.iterdir() if p.is_file()} == before
    lines = call(*given, "--dry-run").stdout.splitlines()
    assert lines[-1] == "0 of 8 cells to run"


def test_a_dry_run_lists_all_fifteen_subsets(call: Call, tmp_path: Path) -> None:
    result = call("sweep", "--scale=tiny", f"--output={tmp_path}/new", "--dry-run")
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert sum("_sum_" in name for name in names) == 2 * 15
    assert sum("_upgrad_" in name for name in names) == 2 * 11
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_all_fifteen_subsets_at_tiny_scale(call: Call, tmp_path: Path) -> None:
    result = call("sweep", *QUICK, f"--output={tmp_path}/all")
    assert result.exit_code == 0, result.output
    (model,) = json.loads((tmp_path / "all" / "sweep.json").read_text(encoding="utf-8"))["models"]
    assert len(model["arg"]) == 4 * (15 + 11)


def test_a_slide_is_explained_and_judged_by_a_preference(
    swept: tuple[Result, Path], call: Call, tmp_path: Path
) -> None:
    _, output = swept
    run = output / "runs" / "tiny-electra_builtin_preference_sim-suff-seed0"
    found = []
    for share in ("sim=1", "suff=1", "sim=1,suff=3"):
        path = tmp_path / "rows.json"
        text = ["--text", "the soup was not good .", f"--json={path}"]
        result = call("explain", run, f"--preference={share}", *text)
        assert result.exit_code == 0, result.output
        found.append(path.read_text(encoding="utf-8"))
    assert len(set(found)) == 3
    judged = call("eval", run, "--entropy", "--rows=4", "--resamples=0", "--preference=suff=1",
                  f"--json={tmp_path}/eval.json", "--explainers=random")  # fmt: skip
    assert judged.exit_code == 0, judged.output
    result = json.loads((tmp_path / "eval.json").read_text(encoding="utf-8"))
    assert result["settings"]["preference"] == {"suff": 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--combine=sums"], "unknown combiner 'sums'. Did you mean 'sum'?"),
        (["--combine="], "a sweep without a way of mixing: expected combiners, as in sum,upgrad"),
        (["--criteria=sim,plauss"], "unknown criterion 'plauss'. Did you mean 'plaus'?"),
        (["--seeds=one"], "--seeds is 'one': expected numbers, as in 0,1"),
        (["--train=lr"], "--train lr: expected key=value"),
        (["--train=bound=suff=0.1"], "combine is sum, which has no use for a bound"),
    ],
)
def test_bad_input_is_one_line(
    call: Call, arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = call("sweep", "--scale=tiny", f"--output={tmp_path}/new", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("comp", "'comp': expected criterion=number"),
        ("comp=x", "--preference comp=x: expected numbers, as in comp=0.7,suff=0.3"),
        ("suff=1", "the module knows one trade-off only: expected a run that was trained with"),
    ],
)
def test_preferences_that_do_not_fit_are_one_line(
    call: Call, trained: object, share: str, message: str
) -> None:
    path = trained.path  # type: ignore[attr-defined]
    result = call("explain", path, "--text=good .", f"--preference={share}")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
