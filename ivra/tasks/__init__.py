"""Tasks: what a model says of a row, what it predicts, and how likely it finds that.

Criteria, training and evaluation ask a :class:`Task` for all of it and know no task themselves.
"""

from ivra.tasks.answering import DOC_STRIDE, MAX_ANSWER_LENGTH, QuestionAnswering, answerable
from ivra.tasks.classification import CLASSIFICATION, Classification, trivial_saliency
from ivra.tasks.squad import answer_f1, exact_match, normalised_answer
from ivra.tasks.task import Claim, Task

__all__ = [
    "CLASSIFICATION",
    "DOC_STRIDE",
    "MAX_ANSWER_LENGTH",
    "Claim",
    "Classification",
    "QuestionAnswering",
    "Task",
    "answer_f1",
    "answerable",
    "exact_match",
    "normalised_answer",
    "trivial_saliency",
]
