"""The figures of SQuAD: exact match and F1 of an answer's words.

Rajpurkar et al. 2016; normalisation and figures as in the official script of SQuAD 1.1.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Whether the normalised prediction is one of the normalised answers."""
    return any(normalised_answer(prediction) == normalised_answer(answer) for answer in answers)


def answer_f1(prediction: str, answers: Sequence[str]) -> float:
    """F1 of the bags of normalised words, in ``[0, 1]``, the best over the answers.

    0 where no word is shared, also where a side has no words.
    """
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    said, gold = normalised_answer(prediction).split(), normalised_answer(answer).split()
    shared = sum((Counter(said) & Counter(gold)).values())
    return 2 * shared / (len(said) + len(gold)) if shared else 0.0
