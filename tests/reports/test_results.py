"""Tables of figures: what stands in them, in the terminal and on the page, old results too."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from ivra.reports import Page, result_lines, results_tables, summary_rows
from ivra.reports.html import page_html

OLD = sorted((Path(__file__).resolve().parents[2] / "benchmarks" / "results").glob("*/*.json"))
FIGURES = {
    "ivra": {
        "comp": 0.4,
        "sim": 0.9,
        "plausibility": 0.75,
        "average_precision": 0.5,
        "cons": None,
        "entropy": 1.5,
        "intervals": {"comp": [0.35, 0.47], "average_precision": [-0.01, 0.6]},
    },
    "random": {"comp": 0.1, "sim": 0.8, "plausibility": 0.5, "average_precision": 0.25},
    "none": {"sim": 0.7, "sim_values": [0.7]},
    "true": {"sim": 0.95},
}
RESULT = {
    "figures": FIGURES,
    "undefined": {"cons": "no batch of at least 3 rows"},
    "accuracy": {
        "accuracy": 0.9,
        "macro_f1": 0.89,
        "plain": {"accuracy": 0.95, "macro_f1": 0.94, "difference": -0.05, "p_value": 0.03125},
    },
    "tests": [
        {"first": "ivra", "second": "none", "difference": 0.2, "p_value": 0.0123},
        {"first": "random", "second": "none", "difference": 0.1, "p_value": 0.5},
    ],
}


def printed(result: dict, width: int = 80) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width)
    for table in results_tables(result):
        console.print(table)
    for line in result_lines(result):
        console.print(line)
    return file.getvalue()


def test_the_terminal_shows_figures_with_half_their_interval_below() -> None:
    lines = printed(RESULT).splitlines()
    assert lines[0].split() == ["explanation", "COMP", "↑", "SIM", "↑", "CONS", "↑", "AUC", "↑"]
    assert lines[1].split() == ["ivra", "(trained)", "0.400", "0.900", "–", "0.750"]
    assert lines[2].split() == ["±.060"]
    assert lines[4].split() == ["no", "explanation", "–", "0.700", "–", "–"]
    assert lines[5].split() == ["true", "rationales", "–", "0.950", "–", "–"]


def test_controls_stand_in_the_first_table_alone() -> None:
    text = printed(RESULT)
    assert text.count("no explanation") == 2  # once a row, once a comparison
    assert text.count("random") == 2
    assert "on tokens" in text
    assert "on words" not in text
    assert re.search(r"^ivra \(trained\) +1\.500$", text, re.MULTILINE)  # entropy: no arrow


def test_below_the_tables_stand_the_model_and_the_tests_of_the_trained_module() -> None:
    assert result_lines(RESULT) == [
        "accuracy 0.900, macro F1 0.890",
        "the plain model: accuracy 0.950, macro F1 0.940 (p = 0.0312)",
        "SIM of ivra: +0.200 against no explanation (p = 0.0123)",
        "[dim]± half of a 95 % interval over rows; the ends are in the file[/dim]",
    ]


def page(result: dict) -> str:
    return page_html(
        Page(
            title="T", run="r", model="m", criteria=("suff",), date="d",
            summary=summary_rows(result),
        )
    )  # fmt: skip


def test_the_page_shows_both_ends_of_an_interval() -> None:
    html = page(RESULT)
    assert '<strong>0.400</strong><span class="range">0.350 to 0.470</span>' in html
    assert '<span class="range">\N{MINUS SIGN}0.010 to 0.600</span>' in html
    assert html.count("<table>") == 3
    assert "its 95 % interval by the bootstrap over rows" in html
    plain = {"ivra": {"comp": 0.4}}
    assert "bootstrap" not in page({"figures": plain, "undefined": {}})


def test_what_does_not_apply_has_no_small_print_and_what_is_undefined_has() -> None:
    notes = re.findall(r"<li>(.*?)</li>", page(RESULT))
    assert notes == [
        "\N{EN DASH} CONS of ivra (trained): no batch of at least 3 rows",
        "\N{EN DASH} CONS of random: not measured.",
    ]


MEASURES = ("comp", "suff", "sim", "cons", "plausibility")


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_results_of_this_and_earlier_versions_are_read(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    if "figures" not in result or "undefined" not in result:
        pytest.skip("no result of an evaluation")
    text = printed(result, 200)
    for name, figures in result["figures"].items():
        for key in MEASURES:
            if figures.get(key) is not None:
                assert f"{figures[key]:.3f}" in text, (name, key)
    shown, own = page(result).replace("\u2212", "-"), result["figures"]["ivra"]
    measured = [key for key in MEASURES if own.get(key) is not None]
    assert measured
    for key in measured:
        assert f"{own[key]:.3f}" in shown, key
    assert ("on tokens" in text) == ("intervals" in own and "plausibility" in own)
