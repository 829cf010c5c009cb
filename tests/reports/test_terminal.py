"""The terminal shows the text, the claim and the evidence, with colour or without."""

import io
from collections.abc import Callable

from rich.console import Console

from ivra.reports.explained import ExplainedRow
from ivra.reports.terminal import render_rows

Explain = Callable[..., ExplainedRow]


def printed(*rows: ExplainedRow, colour: str | None = None, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="")
    console = Console(
        file=file, width=80, force_terminal=True, color_system=colour, no_color=colour == "standard"
    )
    console.print(render_rows(rows))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_without_colour_strong_tokens_are_bold_and_bracketed(explained: Explain):
    row = explained("a truly fine film", [0.05, 0.3, 0.6, 0.05], rationale=[0, 0, 1, 0])
    text = printed(row, colour="standard")
    assert "a \x1b[1m[truly]\x1b[0m \x1b[1;4m[fine]\x1b[0m film" in text
    assert "75.0%" in text
    assert "label: positive" in text


def test_without_any_style_evidence_stands_between_underscores(explained: Explain):
    row = explained("a fine warm film", [0.1, 0.8, 0.1, 0], rationale=[0, 1, 1, 0])
    text = printed(row)
    assert "a _[fine] warm_ film" in text
    assert "\x1b" not in text


def test_with_colour_the_ground_tells_the_share(explained: Explain):
    text = printed(explained("a fine film", [0.1, 0.8, 0.1]), colour="truecolor")
    assert "48;2;249;128;29mfine" in text
    assert "[fine]" not in text


def test_a_wrong_prediction_is_named(explained: Explain):
    assert "wrong, label: negative" in printed(explained("a", [1.0], label="negative"))
    assert "label" not in printed(explained("a", [1.0], label=None))


def test_explainers_of_one_example_share_a_head(explained: Explain):
    rows = [explained("a b", [0.5, 0.5], explainer=name) for name in ("ivra", "random")]
    text = printed(*rows)
    assert text.count("75.0%") == 1
    assert text.index("ivra") < text.index("random")


def test_text_cannot_command_the_terminal_nor_rich(explained: Explain):
    text = printed(explained("\x1b]0;x\x07 [red]fine[/red]", [0.5, 0.1]))
    assert "\x1b]0" not in text
    assert "[red]fine[/red]" in text


def test_plain_characters_where_the_terminal_has_no_others(explained: Explain):
    assert "###############....." in printed(explained("a", [1.0]), encoding="ascii")


def test_no_rows_print_nothing():
    assert printed() == ""
