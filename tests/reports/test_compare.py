"""Explainers side by side: signed tones, the best of a card, the terminal and the page."""

import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from ivra.errors import IvraError
from ivra.reports import Compared, ComparePage, ExplainedRow, compare_json, render_comparison
from ivra.reports.compare import cards, printed, toned
from ivra.reports.compare_html import compare_html

ROW = ExplainedRow(
    id="r<1>",
    explainer="ivra",
    texts=("not <b>bad</b>",),
    tokens=("[CLS]", "not", "<b>bad</b>"),
    spans=(None, (0, 3), (4, 14)),
    segment=(0, 0, 0),
    saliency=(0.0, 0.25, 0.75),
    explainable=(False, True, True),
    prediction="positive",
    confidence=0.9,
    probabilities={"positive": 0.9, "negative": 0.1},
    label="negative",
    rationale=(False, True, False),
)
SIGNED = replace(ROW, explainer="lime", saliency=(0.0, 1.0, -2.0))
BOTH = (Compared(ROW, 0.5, 0.101), Compared(SIGNED, 0.2, 0.099))


def test_a_tone_is_the_share_of_the_largest_score_with_its_sign() -> None:
    (pieces,) = toned(SIGNED)
    assert [(t.piece.text, t.tone) for t in pieces] == [("not", 0.5), (" ", 0), ("<b>bad</b>", -1)]
    assert {t.tone for t in toned(replace(ROW, saliency=(0.0, 0.0, 0.0)))[0]} == {0.0}


def test_the_best_of_a_card_is_judged_as_printed() -> None:
    (card,) = cards(BOTH, {"lime": "LIME"})
    assert [(line.explainer, line.best_comp, line.best_suff) for line in card.lines] == [
        ("ivra", True, False),
        ("LIME", False, False),  # 0.10 and 0.10
    ]
    assert (printed(-0.001), printed(-0.02), printed(None)) == ("0.00", "\N{MINUS SIGN}0.02", "–")


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(IvraError, match="suff is nan"):
        Compared(ROW, 0.1, float("nan"))


def shown(compared: tuple[Compared, ...], colour: bool) -> str:
    target = io.StringIO()
    system = "truecolor" if colour else None
    console = Console(file=target, color_system=system, force_terminal=colour, width=90)
    console.print(render_comparison(compared, {}))
    return target.getvalue()


def test_the_terminal_without_colour_marks_for_and_against() -> None:
    lines = shown(BOTH, colour=False).splitlines()
    assert "positive" in lines[0]
    assert "wrong, label: negative" in lines[0]
    assert lines[2].split() == ["ivra", "_not_", "[<b>bad</b>]", "0.50", "0.10"]
    assert lines[3].split() == ["lime", "_[not]_", "(<b>bad</b>)", "0.20", "0.10"]
    assert "against the prediction)" in " ".join(lines[-2:])
    assert "against" not in shown(BOTH[:1], colour=False)


def test_the_terminal_with_colour_has_two_hues() -> None:
    text = shown(BOTH, colour=True)
    assert "48;2;249;128;29" in text  # orange, at its deepest
    assert "48;2;74;144;226" in text  # blue


class Reader(HTMLParser):
    """The classes of every coloured token, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[tuple[str, str | None]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if tag == "span" and (given.get("class") or "").split()[:1] == ["t"]:
            self.tokens.append((given["class"] or "", given.get("style")))


def page(compared: tuple[Compared, ...]) -> str:
    return compare_html(
        ComparePage("run", "model", ("comp",), "2026-01-01", compared, {"lime": "LIME"})
    )


def test_the_page_colours_by_sign_and_escapes_what_comes_from_outside() -> None:
    html = page(BOTH)
    reader = Reader()
    reader.feed(html)
    assert reader.tokens == [
        ("t", "--s:0.333"),
        ("t", "--s:1.000"),
        ("t", "--s:0.500"),
        ("t n", "--s:1.000"),
    ]
    assert "b" in reader.tags  # the prediction; the text's own tag is none
    assert "&lt;b&gt;bad&lt;/b&gt;" in html
    assert "<b>bad" not in html
    assert "r&lt;1&gt;" in html
    assert not {"script", "link", "img"} & reader.tags
    assert html.count("<mark>") == 3  # two rows and the legend
    assert html.count("<article") == 1
    assert "<strong>0.50</strong>" in html
    assert "<strong>0.10</strong>" not in html


def test_the_legend_has_one_hue_where_nothing_speaks_against() -> None:
    assert 'class="ramp two"' in page(BOTH)
    assert 'class="ramp one"' in page(BOTH[:1])
    bare = replace(ROW, rationale=None)
    assert "underlined" not in page((Compared(bare, None, None),))


def test_json_has_the_figures_beside_the_tokens() -> None:
    first, second = compare_json(BOTH)
    assert (first["explainer"], first["comp"], second["suff"]) == ("ivra", 0.5, 0.099)
    assert len(first["tokens"]) == 3  # type: ignore[arg-type]
