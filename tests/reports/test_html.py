"""The page is complete, escaped, and needs nothing from outside."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ivra.errors import IvraError
from ivra.reports.curves import POINTS, curves
from ivra.reports.explained import ExplainedRow
from ivra.reports.html import page_html, summary_cells, write_html
from ivra.reports.page import METRICS, LogRecord, Page, SummaryRow, Undefined

Explain = Callable[..., ExplainedRow]

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects ids, texts of ``.text`` paragraphs and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.tokens: list[tuple[str, dict[str, str | None]]] = []
        self._inside = False
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [found["id"]] if found.get("id") else []
        if tag not in VOID:
            self.open.append(tag)
        if found.get("class") == "text":
            self._inside = True
            self.texts.append("")
        if self._inside and tag == "span":
            self.tokens.append(("", found))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[-1] += data
            if self.open[-1] == "span":
                self.tokens[-1] = (self.tokens[-1][0] + data, self.tokens[-1][1])


def page(**changes: object) -> Page:
    start = Page(title="A title", run="run-1", model="tiny", criteria=("suff", "comp"), date="now")
    return replace(start, **changes)


def log() -> tuple[LogRecord, ...]:
    train = [LogRecord(step=s, split="train", terms={"suff": 1 / (s + 1)}) for s in range(50)]
    valid = [
        LogRecord(step=s, split="valid", terms={"suff": 1.0, "<sim>": 0.5}) for s in range(0, 50, 9)
    ]
    return (*train, *valid)


def full_page(explained: Explain) -> Page:
    return page(
        facts={"Seed": "1"},
        summary=(SummaryRow("ivra", {"comp": 0.3, "suff": Undefined("too few rows.")}),),
        log=log(),
        rows=(explained("a fine film", [0.1, 0.8, 0.1], rationale=[False, True, False]),),
        config={"steps": 10, "criteria": {"suff": 1.0}},
    )


def test_page_is_well_formed_and_self_contained(explained: Explain):
    html = page_html(full_page(explained))
    reader = Reader(html)
    assert len(reader.ids) == len(set(reader.ids))
    assert not re.search(r"https?:|//[a-z]|@import|file:", html)
    assert not reader.tags & {"script", "link", "img", "iframe"}
    links = [value for name, value in reader.attributes if name in ("href", "src")]
    assert links
    assert all(value.startswith("#") for value in links)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert not any(name.startswith("on") for name, _ in reader.attributes)


def test_same_page_same_bytes(explained: Explain):
    assert page_html(full_page(explained)) == page_html(full_page(explained))


def test_what_is_empty_is_left_out():
    reader = Reader(page_html(page()))
    assert not reader.tags & {"table", "svg", "article", "details", "section"}


def test_everything_from_outside_is_escaped(explained: Explain):
    evil = "<script>alert('\"&')</script>"
    row = replace(
        explained(evil, [0.7] * len(evil.split()), id=evil, explainer=evil, label=evil),
        prediction=evil,
        probabilities={evil: 0.75, evil + "2": 0.25},
    )
    html = page_html(
        page(
            title=evil,
            run=evil,
            model=evil,
            criteria=(evil,),
            date=evil,
            facts={evil: evil},
            summary=(SummaryRow(evil, {"comp": Undefined(evil)}, note=evil),),
            metrics=(replace(METRICS[1], title=evil, meaning=evil),),
            log=(LogRecord(step=1, split="valid", terms={evil: 0.1}),),
            rows=(row, replace(row, confidence=0.5)),
            evidence=evil,
            config={evil: evil, "nested": {"a": evil}},
        )
    )
    reader = Reader(html)
    assert "script" not in reader.tags
    assert "<script" not in html
    assert reader.texts == [evil, evil]


@pytest.mark.parametrize(
    "text",
    [
        "caf\u00e9 na\u00efve",
        "\u05d4\u05e1\u05e8\u05d8 \u05e0\u05e4\u05dc\u05d0",
        "\U0001f469\u200d\U0001f52c wins \U0001f44f\U0001f3fd",
        "  two  spaces\n\nand a\tline  ",
        "a < b && c > d",
        "\u4e2d\u6587 \u6587\u672c",
    ],
)
def test_text_is_shown_verbatim(explained: Explain, text: str):
    row = explained(text, [0.5] * len(text.split()))
    reader = Reader(page_html(page(rows=(row,))))
    assert reader.texts == [text]
    assert [token for token, _ in reader.tokens] == text.split()
    assert ("dir", "auto") in reader.attributes


def test_unpaired_surrogates_can_be_written(tmp_path: Path):
    write_html(tmp_path / "a.html", page(title="\ud83d!"))
    assert "\N{REPLACEMENT CHARACTER}!" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_subwords_touch_and_tokens_carry_their_number(explained: Explain):
    row = explained(
        "An unfair end", [0, 0.01, 0.4, 0.1, 0.49], [None, (0, 2), (3, 5), (5, 9), (10, 13)]
    )
    tokens = Reader(page_html(page(rows=(row,)))).tokens
    assert [(text, found["class"]) for text, found in tokens] == [
        ("An", "t"),
        ("un", "t"),
        ("fair", "t j"),
        ("end", "t"),
    ]
    assert [found["data-v"] for _, found in tokens] == ["0.01", "0.40", "0.10", "0.49"]
    assert tokens[3][1]["style"] == "--s:1.000"
    assert tokens[2][1]["style"] == "--s:0.204"


def test_evidence_is_underlined_only_where_annotated(explained: Explain):
    html = page_html(full_page(explained))
    assert re.search(r'<mark><span class="t"[^>]*>fine</span></mark>', html)
    assert html.count("<mark>") == 2, "one token and the legend"
    plain = page_html(page(rows=(explained("a", [1.0]),)))
    assert "<mark>" not in plain


def test_explainers_stand_side_by_side(explained: Explain):
    rows = [explained("a b", [0.5, 0.5], explainer=name) for name in ("ivra", "random")]
    html = page_html(page(rows=tuple(rows)))
    assert html.count("<article") == 1
    assert html.count(">75.0%<") == 1
    other = page_html(page(rows=(rows[0], replace(rows[1], confidence=0.6))))
    assert (other.count(">75.0%<"), other.count(">60.0%<")) == (1, 1)


def test_best_is_chosen_among_the_numbers_as_printed():
    summary = [
        SummaryRow("a", {"comp": 0.30041, "suff": -0.2, "accuracy": 0.9}),
        SummaryRow("b", {"comp": 0.30039, "suff": 0.1, "accuracy": 0.9}),
        SummaryRow("c", {"comp": -1e-5, "suff": math.nan}),
    ]
    cells = summary_cells(summary, METRICS[:3])
    assert [[cell.text for cell in row] for row in cells] == [
        ["0.900", "0.300", "\N{MINUS SIGN}0.200"],
        ["0.900", "0.300", "0.100"],
        ["\N{EN DASH}", "0.000", "\N{EN DASH}"],
    ]
    assert [[cell.best for cell in row] for row in cells] == [
        [False, True, True],
        [False, True, False],
        [False, False, False],
    ]
    assert cells[2][0].reason == "Accuracy of c: not measured."
    assert "nan" in cells[2][2].reason


def test_missing_metrics_have_no_column_and_reasons_are_said(explained: Explain):
    html = page_html(full_page(explained))
    assert html.count('<th scope="col"') == 3
    assert 'title="SUFF of ivra: too few rows."' in html
    assert "<li>\N{EN DASH} SUFF of ivra: too few rows.</li>" in html


def test_curves_skip_what_is_undefined():
    records = (
        LogRecord(step=0, split="train", terms={"a": None, "b": math.inf}),
        LogRecord(step=1, split="train", terms={"a": 2.0}),
    )
    (curve,) = curves(records)
    assert (curve.term, curve.summary) == ("a", "train from 2 to 2")
    assert curves(()) == ()


def test_long_logs_stay_small():
    records = [LogRecord(step=s, split="train", terms={"a": float(s % 7)}) for s in range(20_000)]
    (curve,) = curves(records)
    path = max(re.findall(r' d="([^"]*)"', curve.svg), key=len)
    assert path.count("L") <= POINTS


def test_certainty_is_not_overstated(explained: Explain):
    row = replace(
        explained("a", [1.0]), confidence=0.99996, probabilities={"positive": 0.99996, "x": 0.00004}
    )
    html = page_html(page(rows=(row,)))
    assert "&gt; 99.9%" in html
    assert "&lt; 0.1%" in html


def test_a_failed_write_keeps_the_old_page(explained: Explain, tmp_path: Path, monkeypatch):
    path = tmp_path / "report.html"
    write_html(path, full_page(explained))
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(IvraError, match="No space left on device"):
        write_html(path, page(title="new"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_reports_import_no_torch_and_no_matplotlib_until_a_curve_is_drawn():
    code = (
        "import sys; from ivra.reports import html, terminal, export; "
        "print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
