"""Tables: the mathematics against NumPy by hand, the best and the second, three formats."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ivra.studies import COLUMNS, Summary, Table, csv_tables, latex_table, markdown_table
from ivra.studies.tables import Column, Row, latex, summary_of

VALUES = [0.31, 0.28, 0.4, 0.35, 0.3]


def table(
    columns: dict[str, Sequence[Sequence[float | None]]],
    names: Sequence[str] | None = None,
    median: bool = False,
    data: Sequence[str] = ("reviews",),
) -> Table:
    """A table of figures by key: a list a row, of a value a seed."""
    made = [Column(name, COLUMNS[key]) for name in data for key in columns]
    count = len(next(iter(columns.values())))
    rows = [
        Row(
            names[i] if names else f"row {i}",
            i > 0,
            tuple(summary_of(values[i]) for _ in data for values in columns.values()),
        )
        for i in range(count)
    ]
    seeds = len(next(iter(columns.values()))[0])
    return Table("Title", "model", tuple(made), tuple(rows), seeds, median)


def test_mean_standard_error_median_and_quartiles() -> None:
    found = summary_of(VALUES)
    assert found.mean == pytest.approx(sum(VALUES) / 5, abs=1e-12)
    by_hand = math.sqrt(sum((v - sum(VALUES) / 5) ** 2 for v in VALUES) / 4) / math.sqrt(5)
    assert found.error == pytest.approx(by_hand, abs=1e-12)
    assert found.error == pytest.approx(float(stats.sem(VALUES)), abs=1e-12)
    quartiles = np.percentile(VALUES, [25, 50, 75])
    assert [found.low, found.median, found.high] == pytest.approx(list(quartiles), abs=1e-12)
    assert found.count == 5


def test_a_single_seed_has_no_error_and_none_at_all_is_undefined() -> None:
    assert summary_of([0.5]).error is None
    assert summary_of([None, None]) == Summary((None, None))
    some = summary_of([None, 0.2, 0.4, math.nan])
    assert (some.count, some.mean) == (2, pytest.approx(0.3))
    assert some.values == (None, 0.2, 0.4, None)


@pytest.mark.parametrize(
    ("key", "figures", "places"),
    [
        ("comp", [0.1, 0.3, 0.2], (None, 1, 2)),
        ("suff", [0.1, 0.3, 0.2], (1, None, 2)),  # lower is better
        ("suff", [0.1, -0.3, -0.2], (None, 1, 2)),
        ("comp", [0.3, 0.3, 0.2, 0.1, 0.2], (1, 1, 2, None, 2)),  # ties alike
        ("comp", [0.30001, 0.29999, 0.2], (1, 1, 2)),  # ties as printed
        ("comp", [0.3, 0.3], (None, None)),  # nothing is better than the other
        ("comp", [None, 0.2, 0.1], (None, 1, 2)),
        ("comp", [None, None], (None, None)),
        ("comp", [-0.00001, 0.00001], (None, None)),  # both print 0.000
        ("entropy", [0.1, 0.3], (None, None)),  # neither way is better
    ],
)
def test_the_best_and_the_second(
    key: str, figures: list[float | None], places: tuple[int | None, ...]
) -> None:
    assert table({key: [[value] for value in figures]}).places(0) == places


def test_markdown_marks_the_best_the_second_and_what_is_undefined() -> None:
    found = markdown_table(table({"suff": [[0.1, 0.3], [0.3, 0.4], [None, None], [0.5, None]]}))
    assert "|  | SUFF ↓ |" in found
    assert "| row 0 | **0.200** ± 0.100 |" in found
    assert "| row 1 | <u>0.350</u> ± 0.050 |" in found
    assert "| row 2 | – |" in found
    assert "| row 3 | 0.500 |" in found
    assert "row 3, reviews SUFF: 1 of 2" in found


def test_median_and_quartiles_in_place_of_the_mean() -> None:
    found = table({"comp": [VALUES, [0.1] * 5]}, median=True)
    assert "**0.310** (0.300 to 0.350)" in markdown_table(found)
    assert "Median (first to third quartile) over 5 seeds" in markdown_table(found)


def test_latex_is_escaped_and_uses_booktabs() -> None:
    names = [r"50% & more_less #1 $x^2$ {~\}", "b"]
    made = table({"comp": [[-0.1, -0.3], [0.2, 0.4]]}, names, data=("a_b", "c"))
    found = latex_table(made)
    escaped = (
        r"50\% \& more\_less \#1 \$x\textasciicircum{}2\$ \{\textasciitilde{}\textbackslash{}\}"
    )
    assert found.count(escaped) == 1
    assert r"\multicolumn{1}{c}{a\_b}" in found
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}" in found
    assert r"\underline{$-$0.200} {\scriptsize $\pm$ 0.100}" in found
    assert r"\textbf{0.300}" in found
    for rule in ("toprule", "midrule", "bottomrule"):
        assert f"\\{rule}" in found
    body = [line for line in found.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in body[1:]} == {2}
    assert latex("a\nb") == "a\nb"


def test_csv_holds_every_figure_in_full() -> None:
    made = table({"comp": [VALUES, [None] * 5], "suff": [[0.1] * 5, [0.2] * 5]}, ["a, b", "c"])
    rows = list(csv.DictReader(io.StringIO(csv_tables([made]))))
    assert [(row["explanation"], row["figure"]) for row in rows] == [
        ("a, b", "comp"),
        ("c", "comp"),
        ("a, b", "suff"),
        ("c", "suff"),
    ]
    assert float(rows[0]["mean"]) == summary_of(VALUES).mean
    assert float(rows[0]["standard_error"]) == summary_of(VALUES).error
    assert [float(value) for value in rows[0]["values"].split()] == VALUES
    assert (rows[1]["mean"], rows[1]["seeds"], rows[1]["place"]) == ("", "0", "")
    assert [row["place"] for row in rows[2:]] == ["1", "2"]


def test_explainers_of_one_fine_tuned_model_stand_once_without_a_remark() -> None:
    figures = {"comp": [[0.1, None, None], [0.2, 0.3, None]]}
    own = replace(table(figures), one_model=True)
    text = markdown_table(own)
    assert "| row 0 | <u>0.100</u> |" in text
    assert "over 3 seeds of training on one fine-tuned model." in text
    assert text.count("of 3") == 1
    assert "row 1, reviews COMP: 2 of 3" in text
    assert "row 0, reviews COMP: 1 of 3" in markdown_table(table(figures))
