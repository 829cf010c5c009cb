"""Explainers with options on the command line: their names in results, errors, other packages."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from ivra.training import Run

Call = Callable[..., Result]

PLUGIN = """
from ivra import Explainer

class Lead(Explainer):
    '''The earlier a token, the more it counts.

    More than that is not said.'''

    name = "lead"

    def __init__(self, decay: float = 0.9):
        self.decay = decay

    def explain(self, backbone, batch):
        place = batch.explainable.cumsum(-1) - 1
        return self.decay**place * (1 if self.decay > 1 else batch.explainable)
"""


@pytest.fixture
def lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed plugin that scores every token if its option is above 1."""
    about = tmp_path / "ivra_lead-0.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ivra-lead\nVersion: 0.3\n")
    (about / "entry_points.txt").write_text("[ivra.explainers]\nlead = module_of_lead:Lead\n")
    (tmp_path / "module_of_lead.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("module_of_lead", None)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr == f"ivra: {message}\n"


def rows_of(path: Path) -> dict[str, list[dict]]:
    """Explained rows of a file by explainer."""
    rows: dict[str, list[dict]] = {}
    for row in json.loads(path.read_text(encoding="utf-8")):
        rows.setdefault(row["explainer"], []).append(row)
    return rows


def test_explain_names_rows_as_explainers_were_asked_for_whatever_the_bound(
    call: Call, trained: Run, tmp_path: Path
) -> None:
    names = ["lime:samples=20:seed=1", "lime:samples=20", "attention-head:layer=-1:head=0", "ivra"]
    texts = ("--text", "not good .", "--text", "the plot was hardly good , but never dull")
    found = {}
    for bound in (1, 100, 2048):
        target = tmp_path / f"{bound}.json"
        arguments = ("--explainers", ", ".join(names), "--json", target)
        done(
            call("explain", trained.path, *texts, *arguments, "--explain-batch-tokens", str(bound))
        )
        found[bound] = rows_of(target)
        assert list(found[bound]) == names
    one, other = (found[2048][name] for name in names[:2])
    assert scores(one) != scores(other), "another seed draws other texts"
    for bound in (1, 100):
        for name in names:
            for row, same in zip(
                scores(found[bound][name]), scores(found[2048][name]), strict=True
            ):
                assert row == pytest.approx(same, abs=1e-4)


def scores(rows: list[dict]) -> list[list[float]]:
    return [[token["saliency"] for token in row["tokens"]] for row in rows]


def test_eval_names_figures_as_explainers_were_asked_for_whatever_the_bound(
    call: Call, trained: Run, tmp_path: Path
) -> None:
    names = ["deeplift:baseline=zero", "attention-rollout", "layer-conductance:steps=4"]
    found = []
    for bound in (30, 2048):
        target = tmp_path / f"{bound}.json"
        chosen = ("--aopc", "--cons", "--entropy", "--rows=6", f"--explainers={','.join(names)}")
        bounded = f"--explain-batch-tokens={bound}"
        done(call("eval", trained.path, *chosen, bounded, "--json", target))
        found.append(json.loads(target.read_text(encoding="utf-8"))["figures"])
    assert list(found[0]) == list(found[1]) == ["ivra", *names]
    for name in names:
        for key in ("comp", "suff", "cons", "entropy"):
            assert found[0][name][key] == pytest.approx(found[1][name][key], abs=1e-3)


@pytest.mark.parametrize(
    ("explainers", "message"),
    [
        (
            "lime:samples=few",
            "lime.samples is 'few': input should be a valid integer, unable to parse string as an "
            "integer (default: 500)",
        ),
        (
            "random,deeplift:baseline=blank",
            "unknown value of deeplift.baseline 'blank'. Choose from: mask, pad, zero.",
        ),
        ("random,random", "explainer 'random' stands twice: name each once"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "explain"])
def test_explainers_that_cannot_be_meant_are_refused_before_the_run_is_read(
    command: str, explainers: str, message: str, call: Call
) -> None:
    text = ("--text", "good") if command == "explain" else ()
    refused(call(command, "no-such-run", *text, "--explainers", explainers), message)


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_a_layer_that_the_model_does_not_have_is_refused(
    command: str, call: Call, trained: Run
) -> None:
    text = ("--text", "good") if command == "explain" else ()
    result = call(command, trained.path, *text, "--explainers", "attention-head:layer=7")
    refused(result, "attention-head:layer is 7: expected -3 to 2, the model has 3 layers")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("eval", "explain_batch_tokens is 0: expected at least 1"),
        ("explain", "batch_tokens is 0: expected at least 1"),
    ],
)
def test_a_bound_below_one_token(command: str, message: str, call: Call, trained: Run) -> None:
    text = ("--text", "good") if command == "explain" else ()
    refused(call(command, trained.path, *text, "--explain-batch-tokens", "0"), message)


def test_plugins_lists_options_of_explainers(call: Call) -> None:
    lines = [" ".join(line.split()) for line in done(call("plugins")).splitlines()]
    assert "option lime:samples 500" in lines
    assert "option deeplift:baseline mask, pad, zero" in lines
    assert "option occlusion:baseline delete, mask, pad, zero" in lines
    assert not any("batch_tokens" in line for line in lines)


@pytest.mark.usefixtures("lead")
def test_an_explainer_of_another_package(call: Call, trained: Run, tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in done(call("plugins")).splitlines()]
    assert any(line.startswith("explainer lead ivra-lead 0.3 The earlier") for line in lines)
    assert not any("More than that" in line for line in lines)
    assert "option lead:decay 0.9" in lines
    target = tmp_path / "rows.json"
    arguments = ("--text", "not good .", "--explainers", "lead:decay=0.5", "--json", target)
    done(call("explain", trained.path, *arguments))
    (row,) = rows_of(target)["lead:decay=0.5"]
    kept = [token["saliency"] for token in row["tokens"] if token["explainable"]]
    assert kept == [1.0, 0.5, 0.25]


@pytest.mark.usefixtures("lead")
def test_an_explainer_of_another_package_that_scores_special_tokens(
    call: Call, trained: Run
) -> None:
    wrong = ("--text", "good", "--explainers", "lead:decay=2")
    refused(
        call("explain", trained.path, *wrong),
        "explainer 'lead:decay=2' returned a score on a token that is not explainable (0.5 at "
        "token 0 of row text 1): expected 0 wherever batch.explainable is false",
    )
