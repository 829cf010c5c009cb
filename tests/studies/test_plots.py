"""Pictures show the figures of the tables; they are read back from what is drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ivra.api import write_study_examples
from ivra.studies import StudyResult, tables_of, write_study
from ivra.studies.heatmaps import coefficient_maps
from ivra.studies.plots import lines, points, thresholds
from ivra.training import load_run

Finished = tuple[StudyResult, Path]


def test_points_stand_at_the_means_with_their_standard_error(finished: Finished) -> None:
    found, _ = finished
    table = tables_of(found)[0]
    figure = points(found, table)
    assert figure is not None
    for place, column in enumerate(table.columns):
        ax = figure.axes[place]
        assert ax.get_title(loc="left") == column.data
        drawn = {
            int(line.get_ydata()[0]): float(line.get_xdata()[0])
            for line in ax.lines[:-1]  # without the rule between the two kinds
            if line.get_markersize() == 6
        }
        means = {i: row.cells[place].mean for i, row in enumerate(table.rows)}
        assert drawn == pytest.approx({i: m for i, m in means.items() if m is not None})
    summary = table.rows[0].cells[0]
    ((start, end),) = figure.axes[0].collections[0].get_segments()
    assert summary.mean is not None
    assert summary.error is not None
    assert [start[0], end[0]] == pytest.approx(
        [summary.mean - summary.error, summary.mean + summary.error]
    )
    undefined = [text.get_text() for text in figure.axes[2].texts]
    assert undefined == ["undefined"]  # an explainer without training has no steps


def named(found: StudyResult, names: dict[str, str]) -> StudyResult:
    """The same results with other names for their data sets."""
    cells = tuple(replace(cell, data=names[cell.data]) for cell in found.matrix.cells)
    return replace(found, matrix=replace(found.matrix, cells=cells))


def test_lines_run_over_the_sizes_that_data_sets_are_named_by(finished: Finished) -> None:
    found, _ = finished
    sizes = named(found, {"little → little": "16", "little → other": "8"})
    table = tables_of(sizes)[0]
    figure = lines(sizes, table)
    assert figure is not None
    line = figure.axes[0].lines[0]
    assert list(line.get_xdata()) == [8.0, 16.0]
    comp = {c.data: s.mean for c, s in zip(table.columns, table.rows[0].cells, strict=True)
            if c.metric.key == "comp"}  # fmt: skip
    assert list(line.get_ydata()) == pytest.approx([comp["8"], comp["16"]])
    assert isinstance(lines(found, tables_of(found)[0]), Figure)  # names that are no numbers


def test_curves_are_the_shares_above_each_threshold(finished: Finished) -> None:
    found, _ = finished
    table = tables_of(found)[0]
    figure = thresholds(found, table)
    assert figure is not None
    cells = [c for c in found.matrix.cells if c.method is None and c.data == "little → little"]
    shares = [
        found.results[c.cell.name]["figures"]["attention"]["important_by_threshold"] for c in cells
    ]
    assert list(figure.axes[0].lines[0].get_ydata()) == pytest.approx(list(np.mean(shares, 0)))


def test_heat_maps_hold_the_coefficients_of_the_run(finished: Finished) -> None:
    found, output = finished
    figure = coefficient_maps(found, "tiny-electra", {})
    assert figure is not None
    run = load_run(output / "runs" / "tiny-electra_little_smat_comp-seed0")
    weights = run.module.head_coefficients().detach().numpy()
    assert figure.axes[0].get_title(loc="left") == "smat (comp)"
    assert np.asarray(figure.axes[0].images[0].get_array()) == pytest.approx(weights)
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    gone = replace(found, matrix=replace(found.matrix, runs=output / "gone"))
    assert coefficient_maps(gone, "tiny-electra", {}) is None


def test_a_study_of_examples_leaves_a_page(finished: Finished, tmp_path: Path) -> None:
    found, _ = finished
    study = found.study.model_copy(update={"plot": "examples"})
    examples = replace(found, study=study)
    written = {path.name for path in write_study(examples, tmp_path)}
    assert written >= {"tables.md", "figure.png", "coefficients.png", "coefficients.svg"}
    (page,) = write_study_examples(examples, tmp_path, rows=2)
    html = page.read_text(encoding="utf-8")
    assert html.count("<article") == 2
    assert html.count('<th scope="row">mean attention</th>') == 2
    assert html.count('<th scope="row">SMaT</th>') == 2
