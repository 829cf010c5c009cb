"""``ivra compare`` and ``ivra.compare``: the figures of a row against the evaluation's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import ivra
from ivra.training import Run, read_splits

Call = Callable[..., Result]
NAMES = ("ivra", "attention", "random")


def test_the_figures_of_the_rows_are_those_of_the_evaluation(trained: Run) -> None:
    """Their mean over rows, from another caller of the same metric; and one row by hand."""
    rows = read_splits(trained.config).test[:6]
    compared = ivra.compare(trained, rows, NAMES)
    assert [entry.row.explainer for entry in compared] == list(NAMES) * 6
    config = ivra.EvalConfig(metrics=("aopc",), rows=6, explainers=NAMES[1:], resamples=0)
    figures = ivra.evaluate(trained, config)["figures"]
    for place, name in enumerate(NAMES):
        own = compared[place :: len(NAMES)]
        comp = sum(entry.comp or 0.0 for entry in own) / 6
        suff = sum(entry.suff or 0.0 for entry in own) / 6
        assert comp == pytest.approx(figures[name]["comp"], abs=1e-5)  # type: ignore[index]
        assert suff == pytest.approx(figures[name]["suff"], abs=1e-5)  # type: ignore[index]


def test_the_command_prints_and_writes(trained: Run, call: Call, tmp_path: Path) -> None:
    target, page = tmp_path / "c.json", tmp_path / "c.html"
    given = ["--data", trained.config.data, "--rows=2", f"--json={target}", f"--html={page}"]
    result = call("compare", trained.path, *given)
    assert result.exit_code == 0, result.output
    assert "COMP ↑  SUFF ↓" in result.stdout
    rows = json.loads(target.read_text(encoding="utf-8"))
    assert [row["explainer"] for row in rows] == [
        "ivra",
        "attention",
        "input-x-gradient",
        "random",
    ] * 2
    assert {type(row["comp"]) for row in rows} == {float}
    html = page.read_text(encoding="utf-8")
    assert html.count("<article") == 2
    assert "<mark>" in html


def test_texts_are_compared_too(trained: Run, call: Call) -> None:
    result = call("compare", trained.path, "--text=the soup was bad .", "--explainers=ivra,lime")
    assert result.exit_code == 0
    assert "LIME" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "piece"),
    [
        ([], "expected either --text or --data, got neither"),
        (["--text=a", "--data=builtin"], "got both"),
        (["--text=a", "--explainers=limes"], "unknown explainer 'limes'"),
        (["--text=a", "--pair=b", "--pair=c"], "got 1 --text and 2 --pair"),
        (["--text=a", "--html=x", "--json=x"], "expected two files"),
    ],
)
def test_bad_input_is_one_line(trained: Run, call: Call, arguments: list[str], piece: str) -> None:
    result = call("compare", trained.path, *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert piece in result.stderr
