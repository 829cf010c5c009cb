"""What each command prints and writes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result

from ivra.explainers import STATIC
from ivra.losses import known_criteria
from ivra.training import Run, TrainConfig, environment, load_run, versions
from ivra.version import __version__

Call = Callable[..., Result]


@pytest.fixture
def copy(trained: Run, tmp_path: Path) -> Path:
    """The trained run where a test may write into it."""
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


def done(result: Result) -> str:
    """What a command that went well printed."""
    assert result.exit_code == 0, result.output
    assert result.exception is None
    return result.stdout


def test_plugins_lists_criteria_explainers_and_models(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = done(call("plugins"))
    for name in (*known_criteria(), *STATIC, "ivra", "tiny-electra", "xlm-roberta"):
        assert any(f" {name} " in f" {line} " for line in printed.splitlines()), name


def test_plugins_lists_the_options_of_criteria(call: Call) -> None:
    lines = [" ".join(line.split()) for line in done(call("plugins")).splitlines()]
    assert "option comp.bins_mode draw, cycle, mean" in lines
    assert "option suff.margin 0.1" in lines
    assert "option plaus.form kl, mae, bce" in lines


def test_env_prints_the_versions(call: Call) -> None:
    printed = done(call("env"))
    for name, version in versions().items():
        assert f"{name:14} {version}" in printed


def test_the_version_is_that_of_the_package(call: Call) -> None:
    assert done(call("--version")) == f"ivra, version {__version__}\n"


@pytest.mark.parametrize("command", ["train", "eval", "explain", "plugins", "env"])
def test_help_names_every_command_and_describes_each(call: Call, command: str) -> None:
    assert f"  {command} " in done(call("--help"))
    assert "Usage: " in done(call(command, "-h"))


def test_help_needs_no_pytorch() -> None:
    code = (
        "import sys; from ivra.cli.main import main; main(['--help'], standalone_mode=False); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_eval_prints_a_table_and_writes_json(call: Call, copy: Path) -> None:
    printed = done(call("eval", copy, "--aopc", "--accuracy"))
    for title in ("ivra (trained)", "untrained module", "mean attention", "random"):
        assert title in printed
    assert "accuracy 0." in printed or "accuracy 1." in printed
    written = json.loads((copy / "eval-test.json").read_text())
    assert f"written to {copy / 'eval-test.json'}" in printed
    assert written["data"]["rows"] == 16
    here = environment(load_run(copy).backbone)
    assert written["environment"] == here
    assert written["training"]["environment"] == here
    assert json.loads((copy / "run.json").read_text())["environment"] == here
    assert set(written["figures"]) == {"ivra", "untrained", "attention", "attention-last", "random"}
    keys = {"comp", "suff", "comp_by_bin", "suff_by_bin", "intervals"}
    assert keys <= set(written["figures"]["ivra"])
    assert f"{written['figures']['ivra']['comp']:.3f}" in printed


def test_eval_writes_where_it_is_told(call: Call, copy: Path, folder: Path, tmp_path: Path) -> None:
    target, page = tmp_path / "figures.json", tmp_path / "page.html"
    arguments = ("--plausibility", "--rows", "5", "--explainers", "random", "--split", "dev")
    printed = done(call("eval", copy, *arguments, "--json", target, "--html", page))
    written = json.loads(target.read_text())
    assert written["data"] == written["data"] | {"split": "dev", "rows": 5}
    assert set(written["figures"]) == {"ivra", "random"}
    assert not list(copy.glob("eval-*"))
    assert "How the model decides" in page.read_text()
    assert str(page) in printed
    printed = done(call("eval", copy, "--accuracy", "--data", folder / "dev.jsonl"))
    assert json.loads((copy / "eval-dev.json").read_text())["data"]["rows"] == 32


def test_eval_simulates(call: Call, copy: Path) -> None:
    small = ("--students=2", "--student-rows=16", "--student-epochs=1", "--explainers=random")
    printed = done(call("eval", copy, "--sim", *small))
    assert "no explanation" in printed
    figures = json.loads((copy / "eval-test.json").read_text())["figures"]
    assert set(figures) == {"ivra", "random", "none", "trivial", "true"}
    assert all(len(figures[name]["sim_values"]) == 2 for name in figures)
    assert "SIM of ivra: " in printed


def test_eval_takes_controls_recall_and_resamples(call: Call, copy: Path) -> None:
    small = ("--students=1", "--student-rows=16", "--student-epochs=1", "--explainers=")
    flags = ("--sim", "--plausibility", "--entropy", "--controls=trivial", "--recall-k=2,3")
    printed = done(call("eval", copy, *flags, *small, "--resamples=0"))
    figures = json.loads((copy / "eval-test.json").read_text())["figures"]
    assert set(figures) == {"ivra", "none", "trivial"}
    assert {"recall_at_2", "recall_at_3", "word_recall_at_3", "support"} <= set(figures["ivra"])
    assert "recall_at_5" not in figures["ivra"]
    assert "intervals" not in figures["ivra"]
    assert "±" not in printed
    assert "on words" in printed


def test_explain_prints_each_text_with_its_prediction(call: Call, trained: Run) -> None:
    printed = done(call("explain", trained.path, "--text", "not good .", "--text", "so [bad] !"))
    assert "text 1" in printed
    assert "text 2" in printed
    plain = printed.replace("[", "").replace("]", "")
    assert "not good ." in plain
    assert "so bad !" in plain
    assert "positive" in printed or "negative" in printed


def test_explain_writes_numbers_and_a_page(
    call: Call, trained: Run, folder: Path, tmp_path: Path
) -> None:
    numbers, page = tmp_path / "rows.json", tmp_path / "rows.html"
    data = ("--data", folder / "test.jsonl", "--rows", "3", "--explainers", "ivra,random")
    done(call("explain", trained.path, *data, "--json", numbers, "--html", page))
    rows = json.loads(numbers.read_text())
    assert [row["explainer"] for row in rows] == ["ivra", "random"] * 3
    for row in rows:
        assert row["confidence"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        (text,) = row["texts"]
        for token in row["tokens"]:
            if token["explainable"]:
                assert text[token["start"] : token["end"]].strip()
            else:
                assert token["saliency"] == 0
        if row["explainer"] == "ivra":
            assert sum(t["saliency"] for t in row["tokens"]) == pytest.approx(1.0, abs=1e-5)
    html = page.read_text()
    assert html.lower().startswith("<!doctype html>")
    assert "<script" not in html


def test_a_device_is_handed_on(
    call: Call, copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def load(run: str, device: str) -> Run:
        asked.append(device)
        return load_run(run, device)

    for module in ("evaluate", "explain"):
        monkeypatch.setattr(import_module(f"ivra.cli.{module}"), "load_run", load)
    done(call("eval", copy, "--accuracy", "--rows", "4", "--device", "cpu:0"))
    done(call("explain", copy, "--text", "good", "--device", "cpu:0"))
    done(call("explain", copy, "--text", "good"))
    assert asked == ["cpu:0", "cpu:0", "cpu"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_is_judged_and_explained_on_a_gpu(call: Call, copy: Path) -> None:
    assert load_run(copy, "cuda").backbone.device.type == "cuda"
    done(call("eval", copy, "--accuracy", "--aopc", "--cons", "--device", "cuda"))
    written = json.loads((copy / "eval-test.json").read_text())
    assert written["environment"]["device"].startswith("cuda")
    done(call("explain", copy, "--text", "good", "--explainers", "ivra,random", "--device", "cuda"))


def test_explain_takes_pairs_and_folders(call: Call, trained: Run, folder: Path) -> None:
    printed = done(call("explain", trained.path, "--text", "a good film", "--pair", "never dull"))
    assert "never" in printed
    printed = done(call("explain", trained.path, "--data", folder, "--split", "dev", "--rows", "1"))
    assert "dev.jsonl:1" in printed.replace("\n", "")


def test_a_flag_wins_over_the_file_and_the_merged_configuration_is_saved(
    call: Call, flags: list[str], tmp_path: Path
) -> None:
    path, runs = tmp_path / "run.yaml", tmp_path / "runs"
    path.write_text("max_steps: 1\nseed: 3\nlr: 0.01\nbins: [10, 50]\nlevels: head,layer\n")
    quick = [flag for flag in flags if not flag.startswith("--max-steps")]
    arguments = ("--config", path, "--seed", "4", "--output", runs, "--name", "merged")
    printed = done(call(*quick, *arguments))
    assert f"run written to {runs / 'merged'}" in printed
    assert "suff" in printed
    assert os.readlink(runs / "latest") == "merged"
    saved = yaml.safe_load((runs / "merged" / "config.yaml").read_text())
    assert saved["seed"] == 4
    assert saved["lr"] == 0.01
    assert saved["max_steps"] == 1
    assert saved["bins"] == [10.0, 50.0]
    assert saved["levels"] == ["head", "layer"]
    assert saved["clip"] == TrainConfig().clip  # a default, written out
    assert load_run(runs / "latest").config.model_dump(mode="json") == saved


def test_options_of_criteria_reach_them_and_the_command_line_wins(
    call: Call, flags: list[str], tmp_path: Path
) -> None:
    path, runs = tmp_path / "run.yaml", tmp_path / "runs"
    path.write_text("options: {suff: {form: absolute, bins_mode: cycle}, plaus: {form: mae}}\n")
    quick = [flag for flag in flags if not flag.startswith("--criteria")]
    given = ("--option", "suff.form=kl", "--option", "suff.margin=0.3")
    where = ("--config", path, "--output", runs, "--name", "set", "--criteria", "suff,plaus")
    printed = done(call(*quick, *where, *given))
    assert "plaus" in printed
    saved = load_run(runs / "set").config
    assert saved.options == {
        "suff": {"form": "kl", "bins_mode": "cycle", "margin": 0.3},
        "plaus": {"form": "mae"},
    }
    again = yaml.safe_load((runs / "set" / "config.yaml").read_text())
    assert again["options"] == saved.options


def test_a_saved_configuration_trains_the_same_run_again(
    call: Call, trained: Run, tmp_path: Path
) -> None:
    config = trained.path / "config.yaml"
    done(call("train", "--config", config, "--output", tmp_path, "--name", "again"))
    for name in ("config.yaml", "module.safetensors", "model/model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (trained.path / name).read_bytes()


def test_the_choices_of_aopc_are_flags_and_stand_in_the_result(
    call: Call, trained: Run, tmp_path: Path
) -> None:
    target = tmp_path / "eval.json"
    flags = ("--aopc-preset", "unirex", "--aopc-removal", "mask", "--aopc-bins", "10,25")
    rows = ("--aopc", "--rows", "4", "--explainers", "", "--json", target)
    done(call("eval", trained.path, *rows, *flags))
    settings = json.loads(target.read_text())["settings"]["aopc"]
    assert settings["removal"] == "mask"
    assert settings["bins"] == [10.0, 25.0]
    assert settings["rounding"] == "round"
    assert settings["normaliser"] == "bins+1"
    assert settings["preset"] is None
    done(call("eval", trained.path, *rows))
    settings = json.loads(target.read_text())["settings"]["aopc"]
    assert settings["bins"] == list(trained.config.bins)
    assert settings["removal"] == "deletion"


def test_the_latest_run_is_the_default(
    call: Call, trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(trained.path, tmp_path / "runs" / "latest")
    monkeypatch.chdir(tmp_path)
    done(call("explain", "--text", "good"))
    done(call("eval", "--accuracy", "--rows", "4"))
    assert (tmp_path / "runs" / "latest" / "eval-test.json").is_file()
