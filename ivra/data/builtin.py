"""A data set generated from a seed: short reviews whose evidence is known to the character.

Each review states the writer's own opinion in one *deciding clause*. Half of the reviews also
hold an opinion of other people, before it or after it, which is as often right as wrong
and so decides nothing; most hold neutral clauses. The deciding opinion is negated in about a
third of the cases ("hardly good", "never dull"). So neither a list of words nor a position
gives the label away, while the words that do are known: the rationale marks the sentiment word
of the deciding clause and its negator, and nothing else.

A quarter of the rows is hardly more than its evidence ("not good ."), so that a model has
seen what is left when a faithfulness metric keeps only the important tokens.
"""

import random
from collections.abc import Sequence
from functools import lru_cache

from ivra.data.batch import Row, Span
from ivra.data.lexicon import (
    ADVERBS,
    AFTER,
    BARE,
    BARE_OTHER,
    BEFORE,
    DISTRACTOR,
    FILLS,
    HEARSAY,
    JOINTS,
    MAIN,
    NEGATIVE,
    NEGATORS,
    POSITIVE,
    TOPICS,
)
from ivra.errors import unknown_name

SIZES = {"train": 2000, "dev": 400, "test": 400}
LABELS = ("negative", "positive")

NEGATED = 0.35
DISTRACTED = 0.5
APART = 0.1
BARE_SHARE = 0.25
LONGEST = 43
"""Words of a review, punctuation included."""

_OPEN, _CLOSE = "\x02", "\x03"
"""Marks around evidence while a text is put together; taken out at the end."""


def builtin_rows(split: str, seed: int = 0) -> list[Row]:
    """The rows of ``split``: 2000 train, 400 dev, 400 test, half of each label in each.

    The same ``seed`` gives the same rows on every machine and Python version. No text occurs
    twice, within a split or across them. Raises :class:`IvraError` for an unknown split.
    """
    if split not in SIZES:
        raise unknown_name("split", split, list(SIZES))
    return list(_all_rows(seed)[split])


@lru_cache(maxsize=8)
def _all_rows(seed: int) -> dict[str, tuple[Row, ...]]:
    rng = random.Random(seed)
    seen: set[str] = set()
    return {
        split: tuple(_row(rng, seen, split, i, LABELS[i % 2]) for i in range(size))
        for split, size in SIZES.items()
    }


def _row(rng: random.Random, seen: set[str], split: str, number: int, label: str) -> Row:
    bare = _chance(rng, BARE_SHARE)
    while True:
        marked = _bare(rng, label) if bare else _review(rng, label)
        text, spans = _unmarked(marked)
        if text not in seen:
            break
    seen.add(text)
    name = f"builtin-{split}-{number}"
    return Row(id=name, texts=(text,), label=label, rationale=(spans,), where=name)


def _review(rng: random.Random, label: str) -> str:
    topic = TOPICS[_pick(rng, tuple(TOPICS))]
    fillers = [_fill(rng, text, topic, "") for text in _shuffled(rng, topic["filler"])]
    core = _fill(rng, _pick(rng, MAIN), topic, _opinion(rng, label, evidence=True))
    if _chance(rng, DISTRACTED):
        opinion = _opinion(rng, _pick(rng, LABELS), evidence=False)
        other = _fill(rng, _pick(rng, DISTRACTOR), topic, opinion)
        frame = _pick(rng, BEFORE if _chance(rng, 0.5) else AFTER)
        if _chance(rng, APART):  # a neutral clause between the two opinions
            other = _between(rng, frame, other, fillers.pop())
        core = frame.format(main=core, other=other)
    before, after = _below(rng, 2), _below(rng, 3)
    text = core
    for i, filler in enumerate(fillers[: before + after]):
        joint = _pick(rng, JOINTS)
        longer = f"{filler}{joint}{text}" if i < before else f"{text}{joint}{filler}"
        text = longer if len(longer.split()) <= LONGEST - 1 else text
    return f"{text} ."


def _bare(rng: random.Random, label: str) -> str:
    topic = TOPICS[_pick(rng, tuple(TOPICS))]
    opinion = _opinion(rng, label, evidence=True)
    if not _chance(rng, DISTRACTED):
        return _fill(rng, _pick(rng, BARE), topic, opinion)
    other = _opinion(rng, _pick(rng, LABELS), evidence=False)
    return _pick(rng, BARE_OTHER).format(opinion=opinion, other=other)


def _between(rng: random.Random, frame: str, other: str, filler: str) -> str:
    joint = _pick(rng, JOINTS)
    first = frame.index("{other}") < frame.index("{main}")
    return f"{other}{joint}{filler}" if first else f"{filler}{joint}{other}"


def _opinion(rng: random.Random, label: str, *, evidence: bool) -> str:
    """Two words that say ``label``: the opposite negated, or an adverb and the sentiment word.

    Only evidence is negated, other people's opinions are hearsay ("supposedly good"), and
    clauses have few lengths: small models trained from scratch on 2000 rows do not learn to
    tell whose opinion is whose from words that stand far apart.
    """
    negated = evidence and _chance(rng, NEGATED)
    positive = (label == "positive") != negated
    words = [_pick(rng, NEGATORS)] if negated else []
    words += [_pick(rng, POSITIVE if positive else NEGATIVE)]
    if evidence:
        words = [f"{_OPEN}{word}{_CLOSE}" for word in words]
    adverbs = ADVERBS if evidence else HEARSAY
    return " ".join(words if negated else [_pick(rng, adverbs), *words])


def _fill(rng: random.Random, pattern: str, topic: dict[str, tuple[str, ...]], opinion: str) -> str:
    choices = {name: _pick(rng, words) for name, words in FILLS.items()}
    aspect = _pick(rng, topic["aspect"])
    return pattern.format(opinion=opinion, aspect=aspect, **choices)


def _unmarked(marked: str) -> tuple[str, tuple[Span, ...]]:
    """The text without its marks, and the spans that stood between them."""
    text, spans = "", []
    for piece in marked.split(_OPEN):
        inside, closed, outside = piece.rpartition(_CLOSE)
        if closed:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + outside
    return text, tuple(spans)


# Only `random.random` is promised to repeat across Python versions, so all draws go through it.


def _chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def _below(rng: random.Random, limit: int) -> int:
    return int(rng.random() * limit)


def _pick(rng: random.Random, choices: Sequence[str]) -> str:
    return choices[_below(rng, len(choices))]


def _shuffled(rng: random.Random, choices: Sequence[str]) -> list[str]:
    return sorted(choices, key=lambda _: rng.random())
