"""What ERASER's results format holds of each row.

DeYoung et al. 2020 (ACL), section 4. Scores and rationales are over the whitespace tokens of the
documents (here: words), class scores are probabilities in ``[0, 1]``.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Item, Row, Span, document_ids, document_tokens
from ivra.evaluation.aopc import Keep, cuts, delete
from ivra.evaluation.prediction import TOKEN_BUDGET, predict
from ivra.losses import AOPC_BINS
from ivra.shapes import Logits

SHARE = 0.2
"""Share of words in a hard rationale where no row tells how long human rationales are."""

Scores = tuple[float, ...]
"""A probability for each class ``(C,)``, or a score for each word of a document."""


class Reduced(NamedTuple):
    """Probabilities without the most important tokens, and with them alone."""

    without: Scores
    only: Scores


class EraserScores(NamedTuple):
    """One row.

    ``prediction`` is the most probable class of the whole row. ``soft`` and ``hard`` have an entry
    a document: a score for each of its words, and the spans ``[start, end)`` of words that are
    the rationale. ``reduced`` is by the hard rationale, ``by_percent`` by the top percents.
    """

    soft: tuple[Scores, ...]
    hard: tuple[tuple[Span, ...], ...]
    prediction: int
    whole: Scores
    reduced: Reduced
    by_percent: dict[float, Reduced]


def documents_of(row: Row) -> list[tuple[int, tuple[Span, ...]]]:
    """Which texts are documents (and not queries), and the characters of their words."""
    tokens = document_tokens(row)
    return [
        (place, tokens[place]) for place, name in enumerate(document_ids(row)) if name is not None
    ]


class _Words(NamedTuple):
    """The document words of a row: how many each document has, and the word of each token.

    A word is its document (counted without queries) and its place there; ``of_token`` is None
    at tokens that are not explainable. A token belongs to the word in which it begins.
    """

    counts: list[int]
    of_token: list[tuple[int, int] | None]


def eraser_scores(
    backbone: Backbone,
    items: Sequence[Item],
    scores: Sequence[Tensor],
    share: float,
    percents: Sequence[float] = AOPC_BINS,
    logits: Logits | None = None,
    budget: int = TOKEN_BUDGET,
) -> list[EraserScores]:
    """The rows of ERASER's results format, in the order of ``items``.

    * ``soft``: a word's score is the sum over its explainable tokens. Words that the model does
      not see (the row was cut) have the lowest score of the row, at most 0.
    * ``hard``: the top ``max(1, ceil(share * N))`` of the ``N`` words that the model sees, ties to
      the earlier one; neighbours in a document are one span.
    * ``reduced``: the tokens of the hard rationale deleted, or those of all other words.
    * ``by_percent``: as in :func:`~ivra.evaluation.aopc`, from the scores of tokens.

    Args:
        scores: each item's scores ``(L_i,)``.
        share: of words in a hard rationale, in ``(0, 1]``, see :func:`rationale_share`.
        percents: of explainable tokens.
        logits: of the whole rows, if they are known already.
    """
    logits = predict(backbone, items, budget) if logits is None else logits
    places: dict[tuple[int, Keep], int] = {}

    def place(row: int, keep: Keep) -> int:
        return places.setdefault((row, keep), len(places))

    soft, hard, wanted = [], [], []
    for row, (item, ranking) in enumerate(zip(items, scores, strict=True)):
        words = _words(item)
        by_word = _by_word(words, ranking)
        top = _top(by_word, share)
        soft.append(_soft(words, by_word))
        hard.append(_spans(words, top))
        inside = [word in top for word in words.of_token]
        pairs = [_keeps(item, inside), *(cuts(item, ranking, percent) for percent in percents)]
        wanted.append([(place(row, without), place(row, only)) for without, only in pairs])
    found = predict(backbone, [delete(items[row], keep) for row, keep in places], budget)
    probabilities = [tuple(row) for row in found.double().softmax(-1).tolist()]
    whole = [tuple(row) for row in logits.double().softmax(-1).tolist()]
    results = []
    for row, numbers in enumerate(wanted):
        first, *others = [Reduced(probabilities[a], probabilities[b]) for a, b in numbers]
        by_percent = dict(zip(percents, others, strict=True))
        prediction = int(logits[row].argmax())
        results.append(
            EraserScores(soft[row], hard[row], prediction, whole[row], first, by_percent)
        )
    return results


def rationale_share(items: Sequence[Item]) -> float:
    """How long human rationales are: the share of marked words among those that the model sees.

    The mean over the rows with a marked word, in ``(0, 1]``; 0.2 if there is none.
    """
    shares = []
    for item in items:
        words = _words(item).of_token
        marked = {word for word, mark in zip(words, item.rationale or [], strict=False) if mark}
        if marked:
            shares.append(len(marked) / len(set(words) - {None}))
    return math.fsum(shares) / len(shares) if shares else SHARE


def _words(item: Item) -> _Words:
    documents = documents_of(item.row)
    of_text = {place: number for number, (place, _) in enumerate(documents)}
    starts = [[start for start, _ in spans] for _, spans in documents]
    of_token: list[tuple[int, int] | None] = []
    for segment, (start, _), yes in zip(item.segment, item.offsets, item.explainable, strict=True):
        document = of_text.get(segment) if yes else None
        word = None if document is None else bisect_right(starts[document], start) - 1
        of_token.append(None if document is None or word is None else (document, word))
    return _Words([len(spans) for _, spans in documents], of_token)


def _by_word(words: _Words, ranking: Tensor) -> dict[tuple[int, int], float]:
    """The score of each word that the model sees, in their order."""
    found: dict[tuple[int, int], float] = {}
    for word, score in zip(words.of_token, ranking.double().tolist(), strict=True):
        if word is not None:
            found[word] = found.get(word, 0.0) + score
    return found


def _top(by_word: dict[tuple[int, int], float], share: float) -> set[tuple[int, int] | None]:
    wanted = max(1, math.ceil(share * len(by_word) - 1e-9))
    return set(sorted(by_word, key=lambda word: (-by_word[word], word))[:wanted])


def _soft(words: _Words, by_word: dict[tuple[int, int], float]) -> tuple[Scores, ...]:
    unseen = min(0.0, *by_word.values())
    return tuple(
        tuple(by_word.get((document, word), unseen) for word in range(count))
        for document, count in enumerate(words.counts)
    )


def _spans(words: _Words, top: set[tuple[int, int] | None]) -> tuple[tuple[Span, ...], ...]:
    found: list[list[Span]] = [[] for _ in words.counts]
    for document, count in enumerate(words.counts):
        for word in range(count):
            if (document, word) not in top:
                continue
            spans = found[document]
            if spans and spans[-1][1] == word:
                spans[-1] = (spans[-1][0], word + 1)
            else:
                spans.append((word, word + 1))
    return tuple(tuple(spans) for spans in found)


def _keeps(item: Item, inside: list[bool]) -> tuple[Keep, Keep]:
    """What stays when the tokens inside are removed, and when they alone are explained."""
    only = tuple(yes or not free for yes, free in zip(inside, item.explainable, strict=True))
    return tuple(not yes for yes in inside), only
