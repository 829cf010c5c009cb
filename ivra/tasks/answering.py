"""Extractive question answering: the answer is a span of the context.

Rajpurkar et al. 2016 (SQuAD); two logits a token as in Devlin et al. 2019 (BERT).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ivra.data import Batch, Item, Row, Span, encode_questions
from ivra.errors import IvraError
from ivra.shapes import (
    Labels,
    Logits,
    RowMask,
    Rows,
    Saliency,
    SpanLogits,
    Spans,
    TokenMask,
    TokenScores,
)
from ivra.tasks.squad import exact_match
from ivra.tasks.task import Claim, Task

LOG_NOTHING = -69.0
"""``log p`` in nats of a boundary where no answer can be, such as a deleted token: about 1e-30."""
MAX_ANSWER_LENGTH = 30
DOC_STRIDE = 32


def answerable(segment: Tensor, word: Tensor) -> Tensor:
    """Where an answer may begin and end: at a visible token of the context."""
    return (segment == 1) & (word >= 0)


def best_spans(outcome: SpanLogits, longest: int) -> Spans:
    """The span of largest ``start logit + end logit`` of each row, of at most ``longest`` tokens.

    Ties go to the earlier start, then to the shorter span. Memory is that of the logits.
    """
    start, end = outcome.to(torch.promote_types(outcome.dtype, torch.float32)).unbind(-1)
    length = start.shape[1]
    best, more = torch.full_like(start, -torch.inf), torch.zeros_like(start, dtype=torch.long)
    for extra in range(min(longest, length)):
        total = torch.full_like(start, -torch.inf)
        total[:, : length - extra] = start[:, : length - extra] + end[:, extra:]
        better = total > best
        best, more = torch.where(better, total, best), torch.where(better, extra, more)
    first = best.argmax(-1, keepdim=True)
    return torch.cat([first, first + more.gather(1, first)], dim=-1)


class QuestionAnswering(Task):
    """The outcome is a start and an end logit a token ``(B, L, 2)``, the prediction the first and
    the last token of a span ``(B, 2)``.

    An outcome is ``-inf`` where no answer can be: outside of the context, and at deleted tokens.
    ``p(span) = p_start(first) p_end(last)``, each a softmax over all other places, so that the
    log-probabilities of the two choices add; spans that end before they begin have their share
    of it. Of a boundary that is not there (``-inf``, or a place below 0) the log-probability is
    :data:`LOG_NOTHING` instead of minus infinity.

    Args:
        doc_stride: tokens of the context that neighbouring windows share.
        max_answer_length: the longest span, in tokens, that is predicted.
        explain_question: whether tokens of the question may receive saliency and be removed.

    Raises:
        IvraError: a number out of range.
    """

    name = "question answering"
    architecture = "ForQuestionAnswering"
    measure = "exact_match"
    head = "qa_outputs"
    places = 2
    removal = "embedding"
    gold_name = "an answer"
    unmeasured: ClassVar[dict[str, str]] = {
        "plausibility": "rows have no 'rationale', and an answer is none"
    }

    def __init__(
        self,
        doc_stride: int = DOC_STRIDE,
        max_answer_length: int = MAX_ANSWER_LENGTH,
        explain_question: bool = False,
    ) -> None:
        if doc_stride < 0:
            raise IvraError(f"doc_stride is {doc_stride}: expected 0 or more")
        if max_answer_length < 1:
            raise IvraError(f"max_answer_length is {max_answer_length}: expected at least 1")
        self.doc_stride = doc_stride
        self.max_answer_length = max_answer_length
        self.explain_question = explain_question

    def encode(
        self,
        rows: Sequence[Row],
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str] | None,
        max_length: int,
    ) -> list[Item]:
        return encode_questions(rows, tokenizer, max_length, self.doc_stride, self.explain_question)

    def lessons(self, items: Sequence[Item]) -> list[Item]:
        """The windows that hold the answer: in SQuAD 1.1 every question has one, and the model is
        asked where in the context it is, so that a window without it has nothing to point at."""
        return [item for item in items if item.answer is not None]

    def knows(self, row: Row) -> bool:
        return bool(row.answers)

    def outcome(self, output: Any, batch: Batch) -> SpanLogits:
        logits = torch.stack([output.start_logits, output.end_logits], dim=-1)
        open_ = answerable(batch.segment, batch.word_ids) & batch.attention_mask
        return logits.masked_fill(~open_[..., None], -torch.inf)

    def kept(self, outcome: SpanLogits, keep: TokenScores) -> SpanLogits:
        """A place kept in proportion ``keep`` has ``keep`` times its share of the softmax, so that
        with 0/1 values the answer is that of the row with the tokens deleted. Where it is exactly
        0 its derivative, which has no bound, is taken as 0."""
        gone = keep == 0
        share = torch.where(gone, 1.0, keep).log().to(outcome)
        return torch.where(gone[..., None], -torch.inf, outcome + share[..., None])

    def predict(self, outcome: SpanLogits) -> Spans:
        return best_spans(outcome, self.max_answer_length)

    def log_prob(self, outcome: SpanLogits, prediction: Spans) -> Rows:
        log, _ = _log_softmax(outcome)
        picked = log.gather(1, prediction.clamp_min(0)[:, None])[:, 0]
        return torch.where(prediction >= 0, picked, LOG_NOTHING).sum(-1)

    def loss(self, outcome: SpanLogits, target: Spans) -> Tensor:
        """The mean over the rows whose answer is in sight; 0 if there is none."""
        known = (target >= 0).all(-1)
        losses = torch.where(known, self.losses(outcome, target), 0.0)
        return losses.sum() / known.sum().clamp_min(1)

    def divergence(self, p: SpanLogits, q: SpanLogits) -> Rows:
        log_p, open_ = _log_softmax(p)
        log_q, _ = _log_softmax(q)
        return torch.where(open_, log_p.exp() * (log_p - log_q), 0.0).sum((1, 2))

    def score(self, outcome: SpanLogits, prediction: Spans) -> Rows:
        return outcome.gather(1, prediction[:, None])[:, 0].sum(-1)

    def same(self, one: Spans, other: Spans) -> RowMask:
        return (one == other).all(-1)

    def classes(self, prediction: Spans) -> Labels:
        """One class: what matters for an answer, whichever it is."""
        return torch.zeros_like(prediction[:, 0])

    def places_of(self, prediction: Spans) -> Spans:
        """Its first and its last token."""
        return prediction

    def gold(self, batch: Batch) -> Spans:
        return batch.answers

    def standard(self, outcome: SpanLogits) -> SpanLogits:
        """About the mean over a row's places."""
        open_ = outcome > -torch.inf
        safe = torch.where(open_, outcome, 0.0)
        mean = safe.sum(1, keepdim=True) / open_.sum(1, keepdim=True).clamp_min(1)
        centred = torch.where(open_, safe - mean, 0.0)
        size = centred.square().sum() / open_.sum().clamp_min(1)
        return torch.where(open_, centred / size.clamp_min(1e-12).sqrt(), -torch.inf)

    def leak(self, explainable: TokenMask, prediction: Spans) -> Saliency:
        """Uniform over the answer's own tokens; over the whole row if none is explainable."""
        place = torch.arange(explainable.shape[1], device=explainable.device)
        inside = (prediction[:, :1] <= place) & (place <= prediction[:, 1:]) & explainable
        inside = torch.where(inside.any(-1, keepdim=True), inside, explainable).float()
        return inside / inside.sum(-1, keepdim=True).clamp_min(1)

    def contrast(self, outcome: SpanLogits, prediction: Spans) -> tuple[Logits, Labels]:
        """Two classes: this span (0), and all others together."""
        p = self.probability(outcome, prediction).clamp_max(1)
        logits = torch.stack([p.log(), torch.log1p(-p)], dim=-1)
        return logits, torch.zeros_like(prediction[:, 0])

    def filled(self, rows: int, parts: Sequence[tuple[Tensor, Tensor]], classes: int) -> SpanLogits:
        longest = max((outcome.shape[1] for _, outcome in parts), default=1)
        found = torch.full((rows, longest, 2), -torch.inf)
        for places, outcome in parts:
            found[places, : outcome.shape[1]] = outcome.cpu()
        return found

    def unpadded(self, outcome: SpanLogits, batch: Batch) -> SpanLogits:
        order = batch.attention_mask.logical_not().int().argsort(dim=1, stable=True)
        return outcome.gather(1, order[..., None].expand_as(outcome))

    def placed(self, prediction: Spans, batch: Batch) -> Spans:
        before = batch.attention_mask.int().argmax(-1, keepdim=True)
        return torch.where(prediction >= 0, prediction + before, prediction)

    def moved(self, prediction: Spans, kept: Tensor) -> Tensor:
        """Of a boundary that is not kept the place is -1."""
        places = prediction[:, None].expand(-1, kept.shape[1], -1)
        after = kept.long().cumsum(-1).gather(2, places) - 1
        return torch.where(kept.gather(2, places), after, -1).flatten(0, 1)

    def chosen(self, items: Sequence[Item], outcome: SpanLogits) -> list[int]:
        """The window in which the span of largest ``start logit + end logit`` is."""
        totals = self.score(outcome, self.predict(outcome)).tolist()
        return [max(places, key=lambda place: totals[place]) for places in _by_row(items)]

    def claims(
        self, items: Sequence[Item], outcome: SpanLogits, labels: Sequence[str]
    ) -> list[Claim]:
        spans = self.predict(outcome)
        shares = self.probability(outcome, spans).clamp(0, 1).tolist()
        found = []
        for item, span, share in zip(items, spans.tolist(), shares, strict=True):
            place = _characters(item, *span)
            text = item.row.texts[1][slice(*place)]
            answers = [answer.text for answer in item.row.answers or ()]
            right = next((answer for answer in answers if exact_match(text, [answer])), None)
            gold = right or next(iter(answers), None)
            correct = right is not None if answers else None
            found.append(Claim(text, share, {text: share}, gold, correct, place))
        return found


def _by_row(items: Sequence[Item]) -> list[list[int]]:
    """The places of the windows of each row; where the same row comes twice, twice."""
    groups: list[list[int]] = []
    before: tuple[Row, int] | None = None
    for place, item in enumerate(items):
        begin = item.offsets[item.segment.index(1)][0]
        if before is None or before[0] is not item.row or begin <= before[1]:
            groups.append([])
        groups[-1].append(place)
        before = item.row, begin
    return groups


def _characters(item: Item, first: int, last: int) -> Span:
    """Where a span of tokens stands in the context."""
    return item.offsets[first][0], item.offsets[last][1]


def _log_softmax(outcome: SpanLogits) -> tuple[SpanLogits, Tensor]:
    """Log-probabilities over the places of each row, and where there are any."""
    wide = outcome.to(torch.promote_types(outcome.dtype, torch.float32))
    open_ = wide > -torch.inf
    log = torch.where(open_, wide, torch.finfo(wide.dtype).min).log_softmax(1)
    return torch.where(open_, log, LOG_NOTHING), open_
