"""The flags of adapters and quantised weights, as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from ivra.training import load_run

Call = Callable[..., Result]


def refused(result: Result) -> str:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    return line


def test_a_llama_is_trained_evaluated_and_explained(
    call: Call, flags: list[str], tmp_path: Path, llama_folder: Callable[..., Path]
) -> None:
    model = ("--model", llama_folder(2, False), "--lora", "--load-in-8bit")
    lora = ("--lora-r", 4, "--lora-alpha", 16, "--lora-dropout", 0.1)
    more = ("--target-modules", "q_proj,k_proj", "--batch-tokens", 300, "--gradient-checkpointing")
    place = ("--output", tmp_path, "--name", "run")
    result = call(*flags, *model, *lora, *more, *place)
    assert result.exit_code == 0, result.output
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["lora"] is config["load_in_8bit"] is config["gradient_checkpointing"] is True
    assert config["load_in_4bit"] is False
    assert config["target_modules"] == ["q_proj", "k_proj"]
    saved = json.loads((tmp_path / "run" / "model" / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (4, 16, 0.1)
    assert sorted(saved["target_modules"]) == ["k_proj", "q_proj"]
    assert load_run(tmp_path / "run").config.batch_tokens == 300
    found = call("eval", tmp_path / "run", "--aopc", "--rows", 4)
    assert found.exit_code == 0, found.output
    found = call("explain", tmp_path / "run", "--text", "the soup was not good .")
    assert found.exit_code == 0, found.output


def test_a_switch_of_the_file_is_taken_back_on_the_command_line(
    call: Call, flags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("lora: true\nmodel: tiny-llama\n")
    place = ("--output", tmp_path / "runs", "--name")
    for switch, adapted in ((), True), (("--no-lora",), False):
        name = "adapted" if adapted else "whole"
        given = ("--config", tmp_path / "run.yaml", *switch, *place, name)
        result = call(*flags, *given)
        assert result.exit_code == 0, result.output
        assert (load_run(tmp_path / "runs" / name).backbone.adapter is not None) == adapted


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["--lora", "--target-modules", "query"],
            "ivra: target_modules: no linear layer is called 'query' in tiny-llama (model family "
            "'llama'): expected some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
            "down_proj",
        ),
        (
            ["--load-in-8bit"],
            "ivra: load_in_8bit without lora: quantised weights cannot be trained: add lora, "
            "whose adapters can",
        ),
        (
            ["--lora-r", "4"],
            "ivra: lora_r is 4 without lora: add lora, or leave lora_r out",
        ),
    ],
)
def test_what_cannot_be_loaded_leaves_nothing(
    call: Call, flags: list[str], tmp_path: Path, given: list[str], told: str
) -> None:
    result = call(*flags, "--model", "tiny-llama", *given, "--output", tmp_path / "runs")
    assert refused(result) == told
    assert not (tmp_path / "runs").exists()
