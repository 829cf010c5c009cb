"""The tables and figures of the paper as studies, at every scale; none of them is run here."""

from collections import Counter
from pathlib import Path

import pytest

from ivra.errors import IvraError
from ivra.studies import PRESETS, SCALES, preset_study, presets
from ivra.studies.matrix import matrix_of

MODEL = {"models": {"small": "tiny-electra"}}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_cells_at_every_scale(name: str, scale: str, tmp_path: Path) -> None:
    study = preset_study(name, scale, {**MODEL, "seeds": [5]}, tmp_path)
    found = matrix_of(study, tmp_path, tmp_path)
    assert found.cells
    static = SCALES[scale].model_seed
    trained = {cell.cell.training.seed for cell in found.cells if cell.method}
    assert trained == {5}
    assert {c.base.seed for c in found.cells} == {5 if static is None else static}
    assert Counter(cell.cell.name for cell in found.cells).most_common(1)[0][1] == 1
    if scale == "tiny":
        assert {cell.base.data for cell in found.cells} == {"builtin"}


@pytest.mark.parametrize(
    ("name", "criterion"),
    [("table1", "sim"), ("table2", "comp"), ("table3", "suff"), ("table4", "cons")],
)
def test_the_first_four_tables_are_a_criterion_each(name: str, criterion: str) -> None:
    study = preset_study(name, "cpu", MODEL, "sets")
    assert study.criteria == (criterion,)
    assert len(study.explainers) + len(study.methods) == 8 + 1  # ours beside the paper's
    assert list(study.data) == ["imdb", "esnli", "squad"]


def test_a_set_has_its_own_lengths_at_the_scale_of_the_paper() -> None:
    study = preset_study("table1", "paper", MODEL, "sets")
    assert study.data["squad"].training == {"max_length": 384, "student_rows": 2000}


def test_what_is_missing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IvraError, match=r"unknown preset 'tabel2'\. Did you mean 'table2'"):
        preset_study("tabel2")
    with pytest.raises(IvraError, match=r"needs the data sets imdb, esnli, squad: .*IVRA_DATA"):
        preset_study("table2", "cpu", MODEL)
    monkeypatch.setattr(presets, "BENCH_MODEL", "no_such_package")
    with pytest.raises(IvraError, match=r"pip install 'ivra\[bench\]'"):
        preset_study("table2", "cpu", {}, "sets")


def test_options_win_over_the_preset() -> None:
    changes = {**MODEL, "data": ["builtin"], "training": {"lr": 0.5}, "seeds": [3]}
    study = preset_study("table3", "cpu", changes)
    assert (list(study.data), study.seeds, study.training["lr"]) == (["builtin"], (3,), 0.5)
    assert study.training["finetune_epochs"] == 1


def test_a_set_that_is_named_has_the_amounts_of_its_scale() -> None:
    study = preset_study("table2", "cpu", {**MODEL, "data": ["sst2", "movies", "mine"]})
    assert study.data["sst2"].evaluation == {"rows": 100}
    assert study.data["movies"].training["max_length"] == 128
    assert study.data["mine"].training == {}
