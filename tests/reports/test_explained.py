"""Texts are cut into pieces that put the text back together."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivra.errors import IvraError
from ivra.reports.explained import ExplainedRow, by_example, cut, top_pieces
from ivra.reports.export import explain_json

Explain = Callable[..., ExplainedRow]


def test_words_subwords_and_special_tokens(explained: Explain):
    row = explained(
        "An unfair end.",
        [0, 0.1, 0.4, 0.2, 0, 0.3],
        [None, (0, 2), (3, 5), (5, 9), (10, 13), (13, 14)],
    )
    (pieces,) = cut(row)
    assert [piece.text for piece in pieces] == ["An", " ", "un", "fair", " ", "end", "."]
    assert [piece.joined for piece in pieces] == [False, False, False, True, False, False, True]
    assert [piece.tokens for piece in pieces] == [(1,), (), (2,), (3,), (), (4,), (5,)]
    assert [piece.share for piece in pieces] == pytest.approx([0.25, 0, 1, 0.5, 0, 0, 0.75])


def test_bytes_of_one_character_share_a_piece(explained: Explain):
    (pieces,) = cut(
        explained(
            "a \N{CLAPPING HANDS SIGN}", [0.5, 0.2, 0.2, 0.1], [(0, 1), (1, 3), (2, 3), (3, 3)]
        )
    )
    assert [(p.text, p.tokens) for p in pieces] == [
        ("a", (0,)),
        (" ", ()),
        ("\N{CLAPPING HANDS SIGN}", (1, 2, 3)),
    ]
    assert pieces[-1].saliency == pytest.approx(0.5)


def test_tokens_without_characters_join_a_neighbour(explained: Explain):
    (pieces,) = cut(explained("a b", [0.1, 0.2, 0.3], [(0, 0), (0, 1), (2, 3)]))
    assert [piece.tokens for piece in pieces] == [(0, 1), (), (2,)]


def test_evidence_bridges_white_space_only(explained: Explain):
    row = explained("so very - good", [0.25] * 4, rationale=[True, True, False, True])
    marked = "".join(piece.text if piece.marked else "|" for piece in cut(row)[0])
    assert marked == "so very|||good"


def test_nothing_positive_means_no_colour(explained: Explain):
    (pieces,) = cut(explained("a b", [0.0, -1.0]))
    assert {piece.share for piece in pieces} == {0.0}
    assert top_pieces(explained("a b", [0.0, -1.0]), 3) == ()


def test_two_texts_share_one_scale(explained: Explain):
    row = replace(
        explained("a b", [0.2, 0.4]), texts=("a", "b"), spans=((0, 1), (0, 1)), segment=(0, 1)
    )
    assert [[piece.share for piece in pieces] for pieces in cut(row)] == [[0.5], [1.0]]
    assert [piece.text for piece in top_pieces(row, 1)] == ["b"]


@given(
    st.text(max_size=20), st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8)
)
def test_pieces_joined_are_the_text_whatever_the_spans(explained: Explain, text: str, ends: list):
    spans = [tuple(sorted((min(a, len(text)), min(b, len(text))))) for a, b in ends]
    row = explained(text, [0.5] * len(spans), spans)
    (pieces,) = cut(row)
    assert "".join(piece.text for piece in pieces) == text
    seen = sorted(token for piece in pieces for token in piece.tokens)
    assert seen == (list(range(len(spans))) if any(p.tokens for p in pieces) else [])


def test_rows_of_one_example_stand_together(explained: Explain):
    rows = [explained("a", [1.0], id=name) for name in ("x", "x", "y")]
    assert [len(group) for group in by_example(rows)] == [2, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"saliency": (1.0,)}, "row row-1: saliency has 1 entries for 2 tokens"),
        ({"saliency": (1.0, float("nan"))}, "the saliency of 'b' is nan"),
        ({"confidence": 97.0}, "confidence is 97.0. Give a probability from 0 to 1"),
        ({"spans": ((0, 1), (2, 9))}, r"the span \(2, 9\) of 'b' leaves its text of 3 characters"),
        ({"segment": (0, 1)}, "'b' is in text 1 of 1"),
    ],
)
def test_what_does_not_fit_is_refused(explained: Explain, change: dict, message: str):
    with pytest.raises(IvraError, match=message):
        replace(explained("a b", [0.5, 0.5]), **change)


def test_json_export(explained: Explain):
    row = explained("a b", [0.0, 0.1, 0.9], [None, (0, 1), (2, 3)], rationale=[False, False, True])
    (data,) = json.loads(json.dumps(explain_json([row])))
    assert (data["prediction"], data["confidence"], data["label"]) == ("positive", 0.75, "positive")
    assert data["tokens"][0] == {
        "token": "[CLS]", "segment": None, "start": None, "end": None,
        "saliency": 0.0, "explainable": False, "rationale": False,
    }  # fmt: skip
    assert data["tokens"][2] == {
        "token": "b", "segment": 0, "start": 2, "end": 3,
        "saliency": 0.9, "explainable": True, "rationale": True,
    }  # fmt: skip
    assert explain_json([explained("a", [1.0])])[0]["tokens"][0]["rationale"] is None
