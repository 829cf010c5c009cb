"""Whatever the user gets wrong is one line, exit code 2, and costs no earlier run."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from ivra.data import builtin_tokenizer
from ivra.losses import known_criteria
from ivra.training import Run

Call = Callable[..., Result]
Contents = Callable[[Path], dict[str, bytes]]
GOOD = '{"text": "good", "label": "positive"}\n{"text": "bad", "label": "negative"}\n'


each_command = pytest.mark.parametrize("command", ["train", "eval", "explain"])


def refused(result: Result, *pieces: str) -> None:
    """The result is one line that holds ``pieces``, and exit code 2."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("ivra: ")
    assert "Traceback" not in result.output
    for piece in pieces:
        assert piece in lines[0]


@pytest.fixture(autouse=True)
def untouched(trained: Run, contents: Contents) -> Iterator[None]:
    """No test here changes the earlier run, or adds to it, or points ``latest`` elsewhere."""
    before = contents(trained.path)
    yield
    assert contents(trained.path) == before
    assert os.readlink(trained.path.parent / "latest") == "first"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """A JSON Lines file of the text given."""

    def made(text: str) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text(text, encoding="utf-8")
        return path

    return made


@each_command
def test_a_missing_data_file(call: Call, trained: Run, tmp_path: Path, command: str) -> None:
    run = [] if command == "train" else [trained.path]
    missing = tmp_path / "missing.jsonl"
    refused(call(command, *run, "--data", missing), f"{missing}: no such file or directory")


@each_command
@pytest.mark.parametrize("bad", ['{"text": "good", "label"', "[1]", '{"txt": "good"}'])
def test_a_bad_line_is_named(
    call: Call, trained: Run, write: Callable[[str], Path], command: str, bad: str
) -> None:
    run = [] if command == "train" else [trained.path]
    path = write(GOOD + bad + "\n")
    refused(call(command, *run, "--data", path), f"{path}:3: ")


def test_an_unknown_label_in_evaluation_data(
    call: Call, trained: Run, write: Callable[[str], Path], flags: list[str]
) -> None:
    path = write(GOOD + '{"text": "fine", "label": "positve"}\n')
    told = (f"{path}:3: unknown label 'positve'", "Did you mean 'positive'?", "negative, positive")
    refused(call("eval", trained.path, "--data", path), *told)
    refused(call(*flags, "--eval-data", path, "--output", path.parent / "runs"), *told)
    assert not (path.parent / "runs").exists()


@each_command
@pytest.mark.parametrize("text", ["", "  \\t "])
def test_an_empty_text_in_a_file(
    call: Call, trained: Run, write: Callable[[str], Path], command: str, text: str
) -> None:
    run = [] if command == "train" else [trained.path]
    path = write(GOOD + f'{{"text": "{text}", "label": "positive"}}\n')
    refused(call(command, *run, "--data", path), f"{path}:3: 'text' is empty")


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text_on_the_command_line(call: Call, trained: Run, text: str) -> None:
    result = call("explain", trained.path, "--text", "good", "--text", text)
    refused(result, "text 2 is empty: expected at least one word")


def test_a_text_of_special_tokens_alone(
    call: Call, trained: Run, write: Callable[[str], Path]
) -> None:
    special = " ".join([trained.backbone.tokenizer.sep_token] * 3)
    refused(call("explain", trained.path, "--text", special), "text 1: no token is left to explain")
    path = write(GOOD + json.dumps({"text": special, "label": "positive"}) + "\n")
    refused(call("eval", trained.path, "--data", path), f"{path}:3: no token is left to explain")


def test_a_row_longer_than_the_model_has_positions_for(
    call: Call, flags: list[str], write: Callable[[str], Path]
) -> None:
    path = write(GOOD + json.dumps({"text": "good " * 300, "label": "positive"}) + "\n")
    given = [*flags, "--data", path, "--output", path.parent / "runs"]
    told = (f"{path}:3: 300 tokens, but the model has positions for 256", "at most 256, got 300")
    refused(call(*given, "--max-length", "300"), *told)
    assert not (path.parent / "runs").exists()


def test_an_unknown_criterion_lists_the_choices(call: Call, flags: list[str]) -> None:
    result = call(*flags, "--criteria", "suf,sim")
    refused(result, "'suf'", "Did you mean 'suff'?", ", ".join(sorted(known_criteria())))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("suff.form=kll", "unknown value of suff.form 'kll'. Did you mean 'kl'? Choose from: "),
        ("suff.frm=kl", "unknown option of suff 'frm'. Did you mean 'form'? Choose from: "),
        ("comp.form=kl", "unknown criterion with options (not in criteria) 'comp'. Choose from: "),
        ("suff.margin=-1", "suff.margin is '-1': input should be greater than or equal to 0"),
        ("suff.samples=1", "suff.samples is '1': input should be greater than or equal to 2"),
        ("suff=kl", "--option suff=kl: expected criterion.option=value, as in comp.form=kl"),
        ("suff.form", "--option suff.form: expected criterion.option=value"),
    ],
)
def test_an_option_that_does_not_fit(
    call: Call, flags: list[str], tmp_path: Path, option: str, told: str
) -> None:
    refused(call(*flags, "--option", option, "--output", tmp_path / "runs"), told)
    assert not (tmp_path / "runs").exists()


def test_options_in_a_file_of_another_shape(call: Call, flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("options: {suff: kl}\n")
    told = f"{path}: options.suff is 'kl': input should be a valid dictionary"
    refused(call(*flags, "--config", path), told)
    refused(call(*flags, "--config", path, "--option", "suff.form=kl"), told)


def test_plausibility_needs_rationales(
    call: Call, write: Callable[[str], Path], flags: list[str], tmp_path: Path
) -> None:
    path = write(GOOD * 8)
    quick = [flag for flag in flags if not flag.startswith(("--data", "--criteria"))]
    result = call(*quick, "--data", path, "--criteria", "plaus", "--output", tmp_path / "runs")
    refused(result, f"criterion 'plaus' needs rows with a 'rationale', which {path} does not have")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("weight", ["x", "-1", "nan", "0"])
def test_a_bad_weight_of_a_criterion(call: Call, flags: list[str], weight: str) -> None:
    refused(call(*flags, "--criteria", f"suff:{weight}"), weight)


def test_an_unknown_model_folder(call: Call, flags: list[str], tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    refused(call(*flags, "--model", missing), f"no model folder at {missing}")
    missing.mkdir()
    refused(call(*flags, "--model", missing), f"{missing} holds no config.json")


def test_a_family_without_a_sequence_classifier(
    call: Call, flags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    result = call(*flags, "--model", tmp_path)
    refused(result, "model family 'vit'", "no sequence classifier", "supported: ")


def test_a_family_that_is_not_on_the_attention_interface(
    call: Call, flags: list[str], tmp_path: Path
) -> None:
    tokenizer = builtin_tokenizer()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DebertaV2Config(vocab_size=len(tokenizer), intermediate_size=8, **sizes)
    DebertaV2ForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = call(*flags, "--model", tmp_path)
    refused(result, "model family 'deberta-v2'", "supported: electra")


@pytest.mark.parametrize("command", ["eval", "explain"])
def test_no_run_there(call: Call, tmp_path: Path, command: str) -> None:
    text = ["--text", "good"] if command == "explain" else []
    missing = tmp_path / "missing"
    refused(call(command, missing, *text), f"no run at {missing}: check the path")
    refused(call(command, tmp_path / "latest", *text), "train one with 'ivra train'")


@pytest.mark.parametrize("part", ["module.safetensors", "module.json", "config.yaml", "model"])
def test_a_run_without_one_of_its_parts(
    call: Call, trained: Run, tmp_path: Path, part: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.path, copy)
    if part == "model":
        shutil.rmtree(copy / part)
    else:
        (copy / part).unlink()
    refused(call("eval", copy), f"{copy} has no {part}: expected a run folder")


@pytest.mark.parametrize("part", ["module.safetensors", "model/model.safetensors"])
def test_a_run_with_half_of_its_weights(
    call: Call, trained: Run, tmp_path: Path, part: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.path, copy)
    half = (copy / part).read_bytes()
    (copy / part).write_bytes(half[: len(half) // 2])
    refused(call("explain", copy, "--text", "good"), str(copy))


@pytest.mark.parametrize(
    "part", ["module.json", "run.json", "config.yaml", "model/config.json", "model/tokenizer.json"]
)
@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_run_with_a_damaged_file(
    call: Call, trained: Run, tmp_path: Path, part: str, text: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained.path, copy)
    (copy / part).write_text(text)
    refused(call("explain", copy, "--text", "good"), str(copy))


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--train", "modul", "'module', 'backbone', 'both'"),
        ("--epochs", "three", "'three' is not a valid float"),
        ("--epochs", "-1", "epochs"),
        ("--epochs", "nan", "epochs"),
        ("--seed", "1.5", "'1.5' is not a valid integer"),
        ("--batch-size", "0", "batch_size"),
        ("--bins", "10,200", "bins"),
        ("--levels", "head,heda", "Did you mean 'head'?"),
        ("--reading", "gain", "Did you mean 'gains'?"),
        ("--saliency-norm", "softmix", "Did you mean 'softmax'?"),
        ("--max-length", "2", "max_length is 2"),
    ],
)
def test_an_unknown_value_of_a_flag(
    call: Call, flags: list[str], flag: str, value: str, told: str
) -> None:
    refused(call(*flags, flag, value), told)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unknown_device(call: Call, flags: list[str], tmp_path: Path, device: str) -> None:
    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("there is a device")
    refused(call(*flags, "--output", tmp_path, "--device", device), device)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--text", "good", "--data", "x.jsonl"], "either --text or --data, got both"),
        ([], "either --text or --data, got neither"),
        (["--text", "a", "--text", "b", "--pair", "c"], "got 2 --text and 1 --pair"),
        (["--text", "good", "--explainers", "ivra,randm"], "Did you mean 'random'?"),
        (["--text", "good", "--rows", "0"], "--rows"),
    ],
)
def test_arguments_of_explain_that_do_not_fit(
    call: Call, trained: Run, arguments: list[str], told: str
) -> None:
    refused(call("explain", trained.path, *arguments), told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--split", "tset"], "Did you mean 'test'?"),
        (["--explainers", "randm"], "Did you mean 'random'?"),
        (["--students", "0"], "students is 0"),
        (["--controls", "trivail"], "Did you mean 'trivial'?"),
        (["--recall-k", "5,x"], "--recall-k is '5,x': expected whole numbers"),
        (["--recall-k", "0"], "recall_k has 0"),
        (["--resamples", "-3"], "resamples is -3"),
        (["--acuracy"], "--acuracy"),
    ],
)
def test_arguments_of_eval_that_do_not_fit(
    call: Call, trained: Run, arguments: list[str], told: str
) -> None:
    refused(call("eval", trained.path, *arguments), told)


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf"])
def test_students_learn_for_a_positive_number_of_epochs(
    call: Call, trained: Run, tmp_path: Path, epochs: str
) -> None:
    small = ["--students=1", "--student-rows=8", "--rows=4", "--explainers=", "--json"]
    target = tmp_path / "eval.json"
    result = call("eval", trained.path, "--sim", f"--student-epochs={epochs}", *small, target)
    refused(result, "student_epochs")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("criteria: suff\nepochss: 3\n", "Did you mean 'epochs'?"),
        ("epochs: three\n", "epochs is 'three'"),
        ("epochs: [3\n", "run.yaml:2: "),
        ("- epochs\n", "expected 'key: value' lines, got list"),
        ("", "expected 'key: value' lines"),
        ("model: 3\n", "model is 3"),
    ],
)
def test_a_bad_yaml_file(call: Call, tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    refused(call("train", "--config", path, "--output", tmp_path / "runs"), told)
    assert not (tmp_path / "runs").exists()


def test_a_yaml_file_that_is_not_there(call: Call, tmp_path: Path) -> None:
    refused(call("train", "--config", tmp_path / "no.yaml"), "no.yaml")


def test_a_name_that_exists(call: Call, trained: Run, flags: list[str]) -> None:
    result = call(*flags, "--output", trained.path.parent, "--name", "first")
    refused(result, f"{trained.path} exists already: choose another name with --name")


def test_an_output_folder_that_cannot_be_made(call: Call, flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for output in (tmp_path / "file", tmp_path / "file" / "runs"):
        refused(call(*flags, "--output", output), f"cannot make the run folder {output}")


def test_an_unknown_command_and_flag(call: Call) -> None:
    refused(call("trian"), "trian")
    refused(call("train", "--epoch", "3"), "--epoch")


def full(*_: object, **__: object) -> None:
    """A disk without room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


SPACE = "No space left on device"


def test_a_disk_that_is_full_when_figures_are_written(
    call: Call, trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = tmp_path / "eval.json"
    target.write_text("earlier")
    monkeypatch.setattr(os, "fsync", full)
    result = call("eval", trained.path, "--accuracy", "--rows", "4", "--json", target)
    refused(result, f"cannot write {target}: {SPACE}")
    assert target.read_text() == "earlier"
    assert os.listdir(tmp_path) == ["eval.json"]
    refused(call("eval", trained.path, "--accuracy", "--rows", "4"), SPACE)


@pytest.mark.parametrize("flag", ["--json", "--html"])
def test_a_disk_that_is_full_when_rows_are_written(
    call: Call, trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    refused(call("explain", trained.path, "--text", "good", flag, tmp_path / "out"), SPACE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("flag", ["--json", "--html"])
def test_a_folder_that_is_not_there_for_the_output(
    call: Call, trained: Run, tmp_path: Path, flag: str
) -> None:
    target = tmp_path / "no" / "out"
    result = call("explain", trained.path, "--text", "good", flag, target)
    refused(result, f"cannot write {target}", "Create the folder first")


def test_a_disk_that_is_full_when_the_configuration_is_saved(
    call: Call, trained: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full)
    refused(call(*flags, "--output", trained.path.parent, "--name", "no-config"), SPACE)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("ivra.training.run.save_file", "no-module"),
        ("transformers.PreTrainedModel.save_pretrained", "no-model"),
    ],
)
def test_a_disk_that_is_full_when_weights_are_saved(
    call: Call,
    trained: Run,
    flags: list[str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    name: str,
) -> None:
    monkeypatch.setattr(place, full)
    refused(call(*flags, "--output", trained.path.parent, "--name", name), SPACE)


def test_a_disk_that_is_full_when_the_log_is_written(
    call: Call, trained: Run, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    def opened(self: Path, mode: str = "r", *rest: object, **named: object) -> object:
        if self.name == "log.jsonl" and mode != "r":
            full()
        return real(self, mode, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", opened)
    refused(call(*flags, "--output", trained.path.parent, "--name", "no-log"), SPACE)


def test_a_pipe_is_written_to_and_not_replaced(call: Call, trained: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        result = call("explain", trained.path, "--text", "good", "--json", pipe)
        assert result.exit_code == 0
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert json.loads(os.read(reader, 1 << 16))
    finally:
        os.close(reader)


def test_a_device_that_is_full_stays_a_device(call: Call, trained: Run, tmp_path: Path) -> None:
    device = tmp_path / "full"  # a twin of /dev/full, which a mistake here would replace
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        with device.open("wb"):
            pass
    except OSError:
        pytest.skip("no right to make or to open a device here")
    result = call("explain", trained.path, "--text", "good", "--json", device)
    assert stat.S_ISCHR(device.stat().st_mode)
    refused(result, SPACE)


def test_the_module_run_from_a_shell_says_one_line_and_exits_with_2(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jsonl"
    command = [sys.executable, "-m", "ivra", "train", "--data", str(missing)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [f"ivra: {missing}: no such file or directory."]
    assert os.listdir(tmp_path) == []
