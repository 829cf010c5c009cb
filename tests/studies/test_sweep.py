"""Sweeps: which subsets, what their gains are, and the front; against loops by hand."""

import csv
import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivra.errors import IvraError
from ivra.studies import (
    Study,
    StudyResult,
    make_study,
    pareto_front,
    plan,
    subsets,
    summary_lines,
    sweep_study,
    sweeps_of,
    write_sweep,
)
from ivra.studies.gains import PLAIN, names_of
from ivra.studies.matrix import matrix_of
from ivra.studies.sweep_plots import front_of_two, front_panels, heat_map, percent


def test_all_non_empty_subsets_the_small_ones_first() -> None:
    assert len(subsets("sim,comp,suff,cons")) == 15
    assert subsets("comp,suff:0.5,cons") == (
        *("comp", "suff:0.5", "cons", "comp,suff:0.5", "comp,cons", "suff:0.5,cons"),
        "comp,suff:0.5,cons",
    )
    assert subsets("sim") == ("sim",)


def test_one_criterion_alone_is_trained_by_the_first_way_only(tmp_path: Path) -> None:
    study = sweep_study(scale="tiny", changes={"seeds": [0, 1]})
    cells = [cell.name for cell in plan(study, tmp_path)]
    assert len(cells) == 2 * (15 + 11)
    assert "tiny-electra_builtin_sum_sim-seed0" in cells
    assert "tiny-electra_builtin_upgrad_sim-seed0" not in cells
    configs = {c.cell.name: c.cell.training for c in matrix_of(study, tmp_path).cells}
    one = configs["tiny-electra_builtin_upgrad_comp-suff-seed1"]
    assert (one.combine, one.criteria, one.seed) == ("upgrad", "comp,suff", 1)
    assert one.levels == ("feature", "head", "layer", "value")


def test_bounds_go_to_the_cells_that_have_them(tmp_path: Path) -> None:
    changes = {"seeds": [0], "training": {"bound": "suff=0.05"}}
    study = sweep_study("comp,suff,cons", ["sum", "constrained"], "tiny", changes)
    with pytest.raises(IvraError, match="combine is sum, which has no use for a bound"):
        matrix_of(study, tmp_path)
    ways = {"sum": {"combine": "sum"}, "held": {"combine": "constrained", "bound": "suff=0.05"}}
    study = sweep_study("comp,suff,cons", ways, "tiny", {"seeds": [0]})
    found = {c.cell.name: c.cell.training for c in matrix_of(study, tmp_path).cells}
    one = found["tiny-electra_builtin_held_comp-suff-seed0"]
    assert (one.combine, one.bound) == ("constrained", {"suff": 0.05})
    other = found["tiny-electra_builtin_held_comp-cons-seed0"]
    assert (other.combine, other.bound) == ("sum", {})


def test_a_warm_start_is_from_the_runs_of_its_criteria_alone(tmp_path: Path) -> None:
    study = sweep_study("comp,suff:2", ["sum", "upgrad:warm"], "tiny", {"seeds": [3]})
    matrix = matrix_of(study, tmp_path)
    names = [cell.cell.name for cell in matrix.cells]
    one = next(c for c in matrix.cells if c.method == "upgrad:warm")
    runs = tmp_path.resolve()
    assert one.cell.training.init_module == (
        str(runs / "tiny-electra_builtin_sum_comp-seed3"),
        str(runs / "tiny-electra_builtin_sum_suff-2-seed3"),
    )
    assert names.index("tiny-electra_builtin_sum_suff-2-seed3") < names.index(one.cell.name)
    methods = {"sum": {"base": "smat"}, "warm": {"base": "smat", "init_module": "alone"}}
    bad = make_study({"methods": methods, "criteria": ["comp", "comp,suff"]})
    with pytest.raises(IvraError, match="does not train for suff alone: add suff to its criteria"):
        matrix_of(bad, tmp_path)


def test_one_run_of_preferences_serves_all_subsets(tmp_path: Path) -> None:
    study = sweep_study("comp,suff:3", ["sum", "preference"], "tiny", {"seeds": [0]})
    cells = [c for c in matrix_of(study, tmp_path).cells if c.method == "preference"]
    assert {c.cell.run for c in cells} == {"tiny-electra_builtin_preference_comp-suff-3-seed0"}
    assert [c.cell.evaluation.preference for c in cells] == [
        {"comp": 1.0},
        {"suff": 3.0},
        {"comp": 1.0, "suff": 3.0},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": []}, "a sweep without a way of mixing: expected combiners, as in sum,upgrad"),
        ({"methods": ["sums"]}, "unknown combiner 'sums'. Did you mean 'sum'?"),
        ({"methods": ["sum", "sum:hot"]}, "unknown start of a combiner 'hot'"),
        ({"methods": ["preference"]}, "the first way of mixing also trains for each criterion"),
        ({"methods": ["upgrad:warm"]}, "which upgrad:warm cannot: expected another before it, as"),
        ({"criteria": "comp,sufff"}, "unknown criterion 'sufff'. Did you mean 'suff'?"),
        ({"scale": "cpu"}, "sweep needs the data sets sst2, esnli: expected a folder of them"),
    ],
)
def test_mistakes_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IvraError) as caught:
        sweep_study(**{"scale": "tiny", **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def swept(small: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """A sweep of two data sets and two seeds whose figures are made up, nothing run."""
    every = subsets("comp,suff,cons")
    study = make_study(
        {
            "name": "swept",
            "data": ["builtin", "other"],
            "criteria": every,
            "methods": {"sum": {"base": "smat"}, "upgrad": {"base": "smat", "combine": "upgrad"}},
            "only": {"upgrad": [text for text in every if "," in text]},
            "explainers": [],
            "seeds": [0, 1],
        }
    )
    matrix = matrix_of(study, tmp_path_factory.mktemp("swept"))
    results = {}
    for place, cell in enumerate(matrix.cells):
        base = {"comp": 0.3, "suff": -0.02, "cons": 0.5}
        figures = {k: v + 0.01 * math.sin(7 * place + len(k)) for k, v in base.items()}
        right = {"accuracy": 0.8 + 0.001 * place, "macro_f1": 0.7, "plain": {"accuracy": 0.85}}
        results[cell.cell.name] = {"figures": {"ivra": figures}, "accuracy": right}
    return StudyResult(study, matrix, results)


def by_hand(found: StudyResult, method: str, text: str, criterion: str) -> float:
    gains = []
    for cell in found.matrix.cells:
        if (cell.method, cell.criterion) != (method, text):
            continue
        (alone,) = [
            other
            for other in found.matrix.cells
            if (other.method, other.criterion) == ("sum", criterion)
            and (other.data, other.cell.training.seed) == (cell.data, cell.cell.training.seed)
        ]
        m = found.results[cell.cell.name]["figures"]["ivra"][criterion]
        b = found.results[alone.cell.name]["figures"]["ivra"][criterion]
        gain = (m - b) / abs(b)
        gains.append(-gain if criterion == "suff" else gain)
    assert len(gains) == 4
    return sum(gains) / 4


def test_gains_against_a_loop_by_hand(swept: StudyResult) -> None:
    (sweep,) = sweeps_of(swept)
    assert len(sweep.gains) == (7 + 4) * 3
    for gain in sweep.gains:
        text = ",".join(gain.criteria)
        expected = by_hand(swept, gain.method, text, gain.criterion)
        assert gain.arg.value == pytest.approx(expected, abs=1e-12)
        assert sum(v for v in gain.seeds if v is not None) / 2 == pytest.approx(expected, abs=1e-12)
        assert gain.member == (gain.criterion in gain.criteria)
        if gain.criteria == (gain.criterion,):
            assert gain.arg.value == 0


def changed(found: StudyResult, part: str, criterion: str, value: float | None) -> StudyResult:
    """The same with the figure of a criterion replaced in cells whose name holds ``part``."""
    results = {}
    for name, result in found.results.items():
        figures = dict(result["figures"]["ivra"])
        if part in name:
            figures[criterion] = value
        results[name] = {**result, "figures": {"ivra": figures}}
    return replace(found, results=results)


@pytest.mark.parametrize("value", [0.0, 5e-7, None])
def test_an_undefined_cell_says_so_and_is_never_zero(
    swept: StudyResult, value: float | None, tmp_path: Path
) -> None:
    found = changed(swept, "builtin_sum_suff-seed1", "suff", value)
    (sweep,) = sweeps_of(found)
    gain = sweep.gain("sum", ("comp", "suff"), "suff")
    assert gain is not None
    assert gain.arg.value is None
    assert gain.arg.reason is not None
    assert "builtin, seed 1" in gain.arg.reason
    assert gain.seeds[0] is not None
    assert gain.seeds[1] is None
    lines = summary_lines(sweep)
    assert "undefined in 3" in lines[0]
    write_sweep(found, tmp_path)
    text = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert "| comp + suff |" in text
    assert "**undef.**" in text
    assert "* undefined: sum, comp + suff, suff: builtin, seed 1: " in text
    words = [t.get_text() for t in heat_map(sweep).axes[0].texts]
    assert words.count("undef.") == 7


def test_a_cell_that_failed_is_undefined_too(swept: StudyResult) -> None:
    name = "tiny-electra_other_upgrad_comp-suff-seed0"
    rest = {key: result for key, result in swept.results.items() if key != name}
    (sweep,) = sweeps_of(replace(swept, results=rest, failures={name: "why"}))
    gain = sweep.gain("upgrad", ("comp", "suff"), "comp")
    assert gain is not None
    assert gain.arg.value is None
    assert gain.arg.reason == "other, seed 0: it has no value on one side"


def test_accuracies_stand_beside_the_plain_model(swept: StudyResult) -> None:
    (sweep,) = sweeps_of(swept)
    table = sweep.accuracy
    assert [row.name for row in table.rows[:5]] == [PLAIN, "comp", "suff", "cons",
                                                    "comp + suff (sum)"]  # fmt: skip
    assert table.rows[-1].name == "comp + suff + cons (upgrad)"
    assert [cell.mean for cell in table.rows[0].cells] == pytest.approx([0.85, 0.85])
    mine = [
        swept.results[c.cell.name]["accuracy"]["accuracy"]
        for c in swept.matrix.cells
        if (c.data, c.method, c.criterion) == ("other", "upgrad", "comp,suff,cons")
    ]
    assert table.rows[-1].cells[1].mean == pytest.approx(sum(mine) / 2)


def test_answers_count_by_exact_match(swept: StudyResult) -> None:
    answered = {
        name: {"figures": r["figures"], "answers": {"exact_match": 0.6, "plain": None}}
        for name, r in swept.results.items()
    }
    (sweep,) = sweeps_of(replace(swept, results=answered))
    assert sweep.accuracy.rows[0].cells[0].mean is None
    assert sweep.accuracy.rows[1].cells[0].mean == pytest.approx(0.6)


grid = st.integers(0, 4).map(float)
points = st.lists(st.tuples(grid, grid, grid), max_size=12)


@given(points)
def test_the_front_is_what_no_other_is_better_than(found: list[tuple[float, float, float]]) -> None:
    front = pareto_front(found)
    for place, on in zip(found, front, strict=True):
        better = [
            other
            for other in found
            if all(a >= b for a, b in zip(other, place, strict=True)) and other != place
        ]
        assert on == (better == [])


def test_the_front_by_hand() -> None:
    places = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (1.0, 1.0), (2.0, 2.0)]
    assert pareto_front(places) == [True, True, True, False, True]
    assert pareto_front([]) == []
    with pytest.raises(ValueError, match="zip"):
        pareto_front([(1.0, 2.0), (1.0,)])


def test_the_front_of_a_sweep_turns_what_is_better_lower(swept: StudyResult) -> None:
    (sweep,) = sweeps_of(swept)
    for data, found in sweep.points.items():
        assert len(found) == 11
        for point in found:
            beaten = any(
                all(
                    (o.figures[c] >= point.figures[c]) == (c != "suff")  # type: ignore[operator]
                    or o.figures[c] == point.figures[c]
                    for c in sweep.criteria
                )
                for o in found
                if o is not point
            )
            assert point.front == (not beaten)
        line = front_of_two(found, ("comp", "suff"))
        assert [x for x, _ in line] == sorted(x for x, _ in line)
        assert [y for _, y in line] == sorted(y for _, y in line), "what is lower is better here"
        panels = front_panels(sweep, data).axes
        assert len(panels) == 3
        assert panels[0].yaxis_inverted()
        assert not panels[1].yaxis_inverted()


def test_the_heat_map_shows_the_gains(swept: StudyResult) -> None:
    (sweep,) = sweeps_of(swept)
    figure = heat_map(sweep)
    for ax, method in zip(figure.axes, ("sum", "upgrad"), strict=False):
        shown = np.ma.filled(ax.images[0].get_array(), np.nan)
        rows = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert rows[3] == "comp + suff"
        for (y, subset), (x, c) in itertools.product(
            enumerate(sweep.subsets()), enumerate(sweep.criteria)
        ):
            gain = sweep.gain(method, subset, c)
            if gain is None:
                assert math.isnan(float(shown[y, x]))
            else:
                assert float(shown[y, x]) == pytest.approx(gain.arg.value)
        counted = sum(g.method == method for g in sweep.gains)
        assert len(ax.texts) == counted


def test_what_is_written_holds_the_same_numbers(swept: StudyResult, tmp_path: Path) -> None:
    (sweep,) = sweeps_of(swept)
    written = {path.name for path in write_sweep(swept, tmp_path)}
    assert written >= {"sweep.md", "sweep.tex", "sweep.csv", "sweep.json", "tables.md", "arg.png"}
    assert written >= {"arg.svg", "front-1.png", "front-2.png"}, "a front for each data set"
    assert {path.name for path in tmp_path.iterdir()} == written
    lines = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text(encoding="utf-8"))))
    model = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))["models"][0]
    for gain, line, entry in zip(sweep.gains, lines, model["arg"], strict=True):
        assert gain.arg.value is not None
        assert float(line["arg"]) == entry["arg"] == gain.arg.value
        assert line["criteria"] == "+".join(gain.criteria)
        assert entry["seeds"] == list(gain.seeds)
    assert model["alone"] == "sum"
    assert {p["front"] for p in model["front"]["builtin"]["points"]} <= {True, False}
    text = (tmp_path / "sweep.md").read_text(encoding="utf-8")
    latex = (tmp_path / "sweep.tex").read_text(encoding="utf-8")
    shown = sweep.gain("upgrad", ("comp", "cons"), "cons")
    assert shown is not None
    assert shown.arg.value is not None
    assert f"**{percent(shown.arg.value)}**" in text
    in_latex = percent(shown.arg.value).replace("\N{MINUS SIGN}", "$-$")
    assert rf"\textbf{{{in_latex}}}" in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 3
    assert "| plain fine-tuned |" in text


def test_the_summary_counts_what_is_trained_for(swept: StudyResult) -> None:
    (sweep,) = sweeps_of(swept)
    for line, method in zip(summary_lines(sweep), ("sum", "upgrad"), strict=True):
        values = {
            (g.criterion, g.criteria): g.arg.value or 0.0
            for g in sweep.gains
            if g.method == method and g.member and len(g.criteria) > 1
        }
        assert len(values) == 9
        kept = sum(v >= 0 for v in values.values())
        (criterion, subset), least = min(values.items(), key=lambda pair: pair[1])
        where = f"{criterion} in {' + '.join(subset)}"
        assert line == (
            f"{method}: ARG at least 0 in {kept} of 9 cells; least {percent(least)} % ({where})"
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.034, "+3"), (-0.12, "\N{MINUS SIGN}12"), (0.004, "0"), (-0.004, "0"), (2.0, "+200")],
)
def test_percent(value: float, text: str) -> None:
    assert percent(value) == text


def test_names_are_without_weights() -> None:
    assert names_of("sim,suff:0.5") == ("sim", "suff")
