"""What a study may say: one line for each mistake, with file and line."""

from pathlib import Path
from typing import Any

import pytest

from ivra.errors import IvraError
from ivra.studies import METHODS, Study, make_study, read_study
from ivra.studies.matrix import matrix_of
from ivra.training import make_config


def test_the_defaults_run_without_any_key() -> None:
    study = make_study({})
    assert (study.models, list(study.data)) == ({"tiny-electra": "tiny-electra"}, ["builtin"])


@pytest.mark.parametrize(
    ("values", "pieces"),
    [
        ({"methodes": []}, ["unknown key in study 'methodes'", "Did you mean 'methods'?"]),
        ({"explainers": "limes"}, ["unknown explainer 'limes'", "lime"]),
        ({"criteria": "comp,shine"}, ["unknown criterion 'shine'", "suff"]),
        ({"columns": "compp"}, ["unknown column 'compp'", "comp"]),
        ({"methods": "smatt"}, ["unknown method", "'smatt'", "smat"]),
        ({"methods": {"mine": {"base": "smatt"}}}, ["unknown method", "smat"]),
        ({"methods": {"mine": {"lr": -1}}}, ["lr is -1", "greater than 0"]),
        ({"methods": {"mine": {"finetune_epochs": 1}}}, ["'finetune_epochs'", "under training"]),
        ({"methods": {"x": {"reading": "literal", "levels": "value"}}}, ["the value level needs"]),
        ({"training": {"epoch": 1}}, ["unknown key", "'epoch'", "epochs"]),
        ({"training": {"batch_size": "many"}}, ["batch_size is 'many'", "integer"]),
        ({"training": {"seed": 1}}, ["'seed' is set by the study", "'seeds'"]),
        ({"training": {"options": {"comp": {"forms": 1}}}}, ["unknown option of comp", "form"]),
        ({"evaluation": {"row": 1}}, ["unknown key", "'row'", "rows"]),
        ({"evaluation": {"rows": "all"}}, ["rows is 'all'", "integer"]),
        ({"evaluation": {"rows": 0}}, ["rows is 0: expected at least 1"]),
        ({"evaluation": {"rows": True}}, ["expected no true or false"]),
        ({"evaluation": {"explainers": ["lime"]}}, ["'explainers' is set by the study"]),
        ({"evaluation": {"aopc": {"cut": "knife"}}}, ["unknown cut of AOPC 'knife'"]),
        ({"evaluation": {"metrics": ["nice"]}}, ["unknown metric 'nice'"]),
        ({"data": {"x": {"sauce": "y"}}}, ["unknown key", "'sauce'", "source"]),
        ({"data": {"x": {"test": {"y": {"part": "dev"}}}}}, ["unknown key", "'part'", "split"]),
        ({"data": {}}, ["data", "at least 1 item"]),
        ({"seeds": []}, ["seeds", "at least 1 item"]),
        ({"seeds": [-1]}, ["seeds.0 is -1"]),
        ({"name": "a/b"}, ["a study cannot be called 'a/b'"]),
    ],
)
def test_mistakes_are_one_line(values: dict[str, Any], pieces: list[str]) -> None:
    with pytest.raises(IvraError) as error:
        make_study(values)
    for piece in pieces:
        assert piece in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nmethodes: x\n", 2),
        ("training:\n  lr: 1\n  epoch: 3\n", 3),
        ("data:\n  sst2:\n    training:\n      lr: -1\n", 4),
        ("methods:\n  smat:\n  mine:\n    levels: [heads]\n", 4),
        ("evaluation:\n\n  aopc: {cut: 3}\nseeds: x\n", 4),
    ],
)
def test_a_file_is_named_with_its_line(text: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(IvraError) as error:
        read_study(path)
    if "levels" not in text:
        assert f"{path}:{line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_changes_win_over_the_file_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {lr: 0.1, epochs: 3}\nseeds: [4]\n", encoding="utf-8")
    study = read_study(path, {"training": {"lr": 0.2}, "criteria": ["sim,suff:0.5"]})
    assert study.training == {"lr": 0.2, "epochs": 3}
    assert (study.name, study.seeds, study.criteria) == ("mine", (4,), ("sim,suff:0.5",))


def cells(study: Study, tmp_path: Path) -> dict[str, Any]:
    return {found.cell.name: found for found in matrix_of(study, tmp_path).cells}


def test_the_matrix_has_every_combination_once(tmp_path: Path) -> None:
    study = make_study(
        {
            "models": ["tiny-electra", "tiny-bert"],
            "methods": ["smat", "ivra-value"],
            "criteria": ["comp", "sim,suff:0.5"],
            "seeds": [0, 7],
        }
    )
    found = cells(study, tmp_path)
    assert len(found) == 2 * 2 * (1 + 2 * 2)
    assert "tiny-bert_builtin_smat_sim-suff-0.5-seed7" in found
    one = found["tiny-bert_builtin_smat_sim-suff-0.5-seed7"]
    assert one.cell.training.criteria == "sim,suff:0.5"
    assert one.cell.training.model == str(tmp_path / "tiny-bert_builtin_base-seed7/model")
    assert (one.cell.training.finetune, one.cell.training.student) == ("never", "tiny-bert")
    assert one.cell.evaluation.metrics == ("aopc", "sim")
    assert one.cell.evaluation.explainers == ()


def test_one_fine_tuned_model_can_serve_all_seeds(tmp_path: Path) -> None:
    study = make_study({"methods": "smat", "criteria": "comp", "seeds": [3, 4], "model_seed": 9})
    found = cells(study, tmp_path)
    assert list(found) == [
        "tiny-electra_builtin_static-seed9",
        "tiny-electra_builtin_smat_comp-seed3",
        "tiny-electra_builtin_smat_comp-seed4",
    ]
    assert {one.base_run for one in found.values()} == {"tiny-electra_builtin_base-seed9"}
    assert {one.base.seed for one in found.values()} == {9}
    trained = [one.cell for one in found.values() if one.method]
    assert [cell.training.seed for cell in trained] == [3, 4]
    assert [cell.evaluation.seed for cell in trained] == [3, 4]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_its_table_says(name: str, tmp_path: Path) -> None:
    """SMaT: one NORM, sparsemax, over all heads; IvRA: the paper's levels."""
    study = make_study({"methods": [name], "criteria": "comp", "seeds": 0})
    training = next(c for c in cells(study, tmp_path).values() if c.method).cell.training
    whole = make_config({**METHODS[name]})
    for key in ("levels", "reading", "coefficients_norm", "saliency_norm"):
        assert getattr(training, key) == getattr(whole, key)
    if name == "smat":
        assert (training.levels, training.coefficients_norm) == (("head",), "sparsemax")
        assert (training.reading, training.saliency_norm) == ("coefficients", "softmax")


def test_the_method_for_fidelity_trains_for_nothing_else(tmp_path: Path) -> None:
    """Whatever the cell is judged by; what the study says of steps still holds."""
    options = {"comp": {"samples": 2}}
    training = {"options": options, "max_steps": 400, "lr": 0.05}
    study = make_study(
        {"methods": "ivra-fidelity", "criteria": "comp", "seeds": 0, "training": training}
    )
    found = next(c for c in cells(study, tmp_path).values() if c.method).cell.training
    assert (found.criteria, found.max_steps, found.lr) == ("fidelity", 400, 0.02)
    assert found.levels == ("feature", "head", "layer", "value", "readout")
    assert found.value_hidden == 64
    assert found.options["fidelity"]["form"] == "squared"


def test_a_method_of_ones_own_starts_from_another(tmp_path: Path) -> None:
    own = {"smat-sim": {"base": "smat", "criteria": "sim", "lr": 0.1}}
    study = make_study({"methods": own, "criteria": "comp", "seeds": 0})
    training = next(c for c in cells(study, tmp_path).values() if c.method).cell.training
    assert (training.criteria, training.lr, training.levels) == ("sim", 0.1, ("head",))


def test_options_go_to_the_criteria_they_belong_to(tmp_path: Path) -> None:
    options = {"suff": {"form": "probability"}}
    study = make_study({"criteria": "comp,suff", "seeds": 0, "training": {"options": options}})
    found = {c.criterion: c.cell.training.options for c in cells(study, tmp_path).values()}
    assert "form" not in found["comp"].get("comp", {})
    assert found["suff"]["suff"]["form"] == "probability"


def test_two_cells_of_one_name_are_refused(tmp_path: Path) -> None:
    study = make_study({"data": {"a b": {}, "a-b": {}}})
    with pytest.raises(IvraError, match="two cells of 'study' are called"):
        matrix_of(study, tmp_path)
