"""The configuration: everything that does not fit is one line before anything starts."""

from pathlib import Path

import pytest
import yaml

from ivra.errors import IvraError
from ivra.losses import AOPC_BINS
from ivra.training import TrainConfig, make_config, read_config


def message_of(**values: object) -> str:
    with pytest.raises(IvraError) as caught:
        make_config(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_defaults_fit() -> None:
    config = make_config({})
    assert config == TrainConfig()
    assert config.criteria == "sim,suff"
    assert config.levels == ("feature", "head", "layer", "value")
    assert config.bins == AOPC_BINS
    assert config.is_tiny


def test_values_are_taken_over() -> None:
    config = make_config({"criteria": "comp:2", "lr": 0.5, "model": "some/where", "seed": 7})
    assert (config.criteria, config.lr, config.model, config.seed) == (
        "comp:2",
        0.5,
        "some/where",
        7,
    )
    assert not config.is_tiny


def test_an_unknown_key_lists_the_choices_with_a_suggestion() -> None:
    choices = ", ".join(sorted(TrainConfig.model_fields))
    assert message_of(criterias="sim") == (
        "unknown key in configuration 'criterias'. Did you mean 'criteria'? "
        f"Choose from: {choices}."
    )
    with pytest.raises(IvraError, match=r"unknown key in runs/a\.yaml 'zzz'\. Choose from: "):
        make_config({"zzz": 1}, "runs/a.yaml")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr": 0}, "configuration: lr is 0: input should be greater than 0"),
        ({"lr": -1.5}, "configuration: lr is -1.5: input should be greater than 0"),
        (
            {"batch_size": 0},
            "configuration: batch_size is 0: input should be greater than or equal to 1",
        ),
        ({"decay": 1.5}, "configuration: decay is 1.5: input should be less than or equal to 1"),
        (
            {"epochs": "many"},
            "configuration: epochs is 'many': input should be a valid number, unable to parse "
            "string as a number",
        ),
        (
            {"train": "all"},
            "configuration: train is 'all': input should be 'module', 'backbone' or 'both'",
        ),
        (
            {"bins": "5,200"},
            "configuration: bins.1 is '200': input should be less than or equal to 100",
        ),
        ({"bins": [0]}, "configuration: bins.0 is 0: input should be greater than 0"),
        (
            {"levels": "feature,heads"},
            "unknown level 'heads'. Did you mean 'head'? Choose from: "
            "feature, head, layer, readout, value.",
        ),
        (
            {"reading": "gain"},
            "unknown reading 'gain'. Did you mean 'gains'? "
            "Choose from: coefficients, gains, literal.",
        ),
        (
            {"saliency_norm": "argmax"},
            "unknown normaliser 'argmax'. Did you mean 'sparsemax'? "
            "Choose from: entmax15, softmax, sparsemax.",
        ),
        (
            {"topk_gradient": "straight"},
            "unknown top-k gradient 'straight'. Did you mean 'straight-through'? "
            "Choose from: entropic, perturbed, sampled, sigmoid, straight-through.",
        ),
        (
            {"criteria": "sim,comp:0"},
            "criterion 'comp' has weight '0': expected a positive number, as in comp:0.5",
        ),
    ],
    ids=lambda part: str(part)[:40],
)
def test_a_bad_value_is_named_in_one_line(values: dict[str, object], expected: str) -> None:
    assert message_of(**values) == expected


def test_a_bad_criterion_is_named_before_the_run() -> None:
    assert message_of(criteria="sim,suf").startswith(
        "unknown criterion 'suf'. Did you mean 'suff'? Choose from: "
    )


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("key", ["epochs", "lr", "student_beta"])
def test_numbers_that_are_not_finite_do_not_fit(key: str, value: float) -> None:
    assert key in message_of(**{key: value})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lora": 1}, "configuration: lora is 1: expected true or false"),
        ({"lora": "yes"}, "configuration: lora is yes: expected true or false"),
        ({"load_in_8bit": None}, "configuration: load_in_8bit is None: expected true or false"),
        ({"lora_r": True}, "configuration: lora_r is True: expected no true or false"),
        (
            {"lora": True, "lora_r": 0},
            "configuration: lora_r is 0: input should be greater than or equal to 1",
        ),
        (
            {"lora": True, "lora_dropout": 1},
            "configuration: lora_dropout is 1: input should be less than 1",
        ),
        (
            {"dtype": "int8"},
            "configuration: dtype is 'int8': input should be 'auto', 'float32', 'bfloat16' or "
            "'float16'",
        ),
        (
            {"lora": True, "load_in_8bit": True, "load_in_4bit": True},
            "load_in_8bit and load_in_4bit are both set: expected one of them",
        ),
        (
            {"load_in_8bit": True},
            "load_in_8bit without lora: quantised weights cannot be trained: add lora, whose "
            "adapters can",
        ),
        (
            {"load_in_4bit": True},
            "load_in_4bit without lora: quantised weights cannot be trained: add lora, whose "
            "adapters can",
        ),
        ({"lora_r": 16}, "lora_r is 16 without lora: add lora, or leave lora_r out"),
        (
            {"target_modules": "q_proj, v_proj"},
            "target_modules is q_proj,v_proj without lora: add lora, or leave target_modules out",
        ),
        (
            {"batch_tokens": 0},
            "configuration: batch_tokens is 0: input should be greater than or equal to 1",
        ),
    ],
    ids=str,
)
def test_what_a_model_cannot_be_loaded_with(values: dict[str, object], expected: str) -> None:
    assert message_of(**values) == expected


def test_switches_are_true_or_false() -> None:
    config = make_config({"lora": True, "load_in_4bit": True, "gradient_checkpointing": False})
    assert (config.lora, config.load_in_4bit, config.gradient_checkpointing) == (True, True, False)
    assert not make_config({}).lora


def test_commas_are_lists() -> None:
    config = make_config({"levels": "layer,value", "bins": "10,20.5"})
    assert config.levels == ("layer", "value")
    assert config.bins == (10.0, 20.5)
    assert make_config({"bins": [10, 20.5]}).bins == (10.0, 20.5)


def test_blanks_after_commas_do_no_harm() -> None:
    """As in ``criteria: sim, suff``, which is read so."""
    config = make_config({"criteria": "sim, suff", "levels": "layer, value", "bins": "10, 20"})
    assert config.levels == ("layer", "value")
    assert config.bins == (10.0, 20.0)


def test_a_run_needs_a_percentage() -> None:
    assert "bins" in message_of(bins="")


def test_the_value_level_of_the_literal_reading_is_refused_before_the_run() -> None:
    assert "the value level" in message_of(reading="literal", levels="head,value")


def test_a_module_that_is_trained_needs_a_level() -> None:
    assert "levels" in message_of(levels="", train="module")


def test_a_yaml_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("criteria: comp\nbins: [5, 10]\nlevels: head,layer\n")
    config = make_config(read_config(path), str(path))
    assert (config.criteria, config.bins, config.levels) == ("comp", (5.0, 10.0), ("head", "layer"))


def test_a_configuration_survives_being_written_and_read(tmp_path: Path) -> None:
    config = make_config({"bins": "3,7.5", "levels": "value", "max_steps": 4, "student": "x"})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert make_config(read_config(path)) == config


def yaml_message(path: Path) -> str:
    with pytest.raises(IvraError) as caught:
        read_config(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_yaml_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("criteria: sim\nlr: 0.1\nbins: [1, 2\nseed: 3\n")
    assert yaml_message(path).startswith(f"{path}:4: ")
    path.write_text("criteria: sim\n\tlr: 0.1\n")
    assert yaml_message(path).startswith(f"{path}:2: ")


def test_yaml_that_is_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text("- sim\n")
    assert yaml_message(path) == f"{path}: expected 'key: value' lines, got list"


def test_yaml_that_builds_objects_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n")
    assert yaml_message(path).startswith(f"{path}:1: ")


def test_a_yaml_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert yaml_message(missing).startswith(f"cannot read {missing}: ")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert yaml_message(binary).startswith(f"cannot read {binary}: ")
    control = tmp_path / "control.yaml"
    control.write_text("seed: \x01\n")
    assert yaml_message(control).startswith(f"{control}: ")


def test_yaml_that_is_nested_without_end(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("lr: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(IvraError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}: nested too deep: expected 'key: value' lines"


@pytest.mark.parametrize("place", ["lr", "options.suff.margin", "options.suff.form"])
def test_yaml_whose_values_refer_to_one_another_is_shown_in_brief(
    tmp_path: Path, place: str
) -> None:
    """Written out it would fill the memory."""
    *above, last = place.split(".")
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate([*above, last])]
    blank = "  " * len(lines)
    lines.append(f"{blank}k0: &x0 {{z: 1}}")
    for n in range(30):
        inner = ", ".join(f"{key}: *x{n}" for key in "abcdef")
        lines.append(f"{blank}k{n + 1}: &x{n + 1} {{{inner}}}")
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(["criteria: suff", *lines]))
    with pytest.raises(IvraError) as caught:
        make_config(read_config(path), str(path))
    assert len(str(caught.value)) < 600
    assert "{...}" in str(caught.value)
