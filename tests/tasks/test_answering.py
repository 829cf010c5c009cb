"""Answers as spans: probabilities, predictions and windows against naive loops in float64."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ivra.data import Answer, Item, Row, builtin_tokenizer, collate, encode_questions
from ivra.errors import IvraError
from ivra.losses import comprehensiveness_loss, sufficiency_loss
from ivra.tasks import QuestionAnswering

TASK = QuestionAnswering(max_answer_length=3)
TOKENIZER = builtin_tokenizer()
CONTEXT = "the plot was dull . the music was good . we had the soup , and it was bad ."


def drawn(rows: int, length: int, seed: int) -> Tensor:
    """Logits with closed places in front, behind and here and there."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, length, 2, generator=generator, dtype=torch.float64)
    for row in range(rows):
        shut = torch.rand(length, generator=generator) < 0.3
        shut[0] = True
        shut[1 + row % (length - 1)] = False
        logits[row, shut] = -torch.inf
    return logits


def naive(logits: Tensor) -> list[dict[tuple[int, int], float]]:
    """``p(first, last)`` of every pair of open places, whichever comes first."""
    found = []
    for row in logits.tolist():
        exp = [[math.exp(value) for value in column] for column in zip(*row, strict=True)]
        start, end = ([value / sum(column) for value in column] for column in exp)
        there = [place for place, value in enumerate(row) if value[0] > -math.inf]
        found.append({(a, b): start[a] * end[b] for a in there for b in there})
    return found


@given(seed=st.integers(0, 10**6), length=st.integers(2, 9), longest=st.integers(1, 12))
def test_the_prediction_is_the_best_span_of_all_that_may_be(
    seed: int, length: int, longest: int
) -> None:
    logits = drawn(4, length, seed)
    found = QuestionAnswering(max_answer_length=longest).predict(logits).tolist()
    for table, span in zip(naive(logits), found, strict=True):
        allowed = {s: p for s, p in table.items() if 0 <= s[1] - s[0] < longest}
        if allowed:
            assert tuple(span) == max(allowed, key=lambda s: allowed[s])


@given(seed=st.integers(0, 10**6), length=st.integers(2, 9))
def test_probabilities_are_products_of_two_softmaxes_over_open_places(
    seed: int, length: int
) -> None:
    logits = drawn(3, length, seed)
    tables = naive(logits)
    assert all(sum(table.values()) == pytest.approx(1, abs=1e-12) for table in tables)
    for first in range(length):
        for last in range(length):
            span = torch.tensor([[first, last]]).expand(3, 2)
            found, logs = TASK.probability(logits, span), TASK.log_prob(logits, span)
            for row, table in enumerate(tables):
                expected = table.get((first, last), 0.0)
                assert found[row].item() == pytest.approx(expected, abs=1e-12)
                assert math.isfinite(logs[row].item())
                if expected:
                    assert logs[row].item() == pytest.approx(math.log(expected), abs=1e-9)


def test_a_boundary_that_is_not_there_has_probability_nothing() -> None:
    logits = torch.zeros(2, 4, 2)
    logits[1] = -torch.inf
    span = torch.tensor([[-1, 2], [1, 2]])
    assert TASK.log_prob(logits, span).tolist() == pytest.approx([-69 - math.log(4), -138])
    assert TASK.probability(logits, span).max() < 1e-29


@given(seed=st.integers(0, 10**6))
def test_the_divergence_is_that_of_the_joint_distribution_over_pairs(seed: int) -> None:
    q = drawn(3, 6, seed)
    p = torch.where(q > -torch.inf, drawn(3, 6, seed + 1).nan_to_num(neginf=0.5), -torch.inf)
    found = TASK.divergence(p, q).tolist()
    for one, other, value in zip(naive(p), naive(q), found, strict=True):
        expected = sum(share * math.log(share / other[s]) for s, share in one.items())
        assert value == pytest.approx(expected, abs=1e-9)


def test_losses_skip_rows_without_an_answer_in_sight() -> None:
    logits = drawn(3, 5, 1).requires_grad_()
    target = torch.tensor([[1, 1], [-100, -100], [3, 3]])
    expected = -(naive_log(logits, 0, (1, 1)) + naive_log(logits, 2, (3, 3))) / 2
    loss = TASK.loss(logits, target)
    assert loss.item() == pytest.approx(expected, abs=1e-9)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert not logits.grad[1].any()
    assert TASK.loss(logits, torch.full((3, 2), -100)).item() == 0


def naive_log(logits: Tensor, row: int, span: tuple[int, int]) -> float:
    return math.log(naive(logits)[row].get(span, 0) or math.exp(-138))


def test_closed_places_have_no_gradient_and_do_no_harm() -> None:
    logits = drawn(4, 6, 2).requires_grad_()
    for value in (
        TASK.log_prob(logits, TASK.predict(logits)).sum(),
        TASK.divergence(logits, logits.detach() * 0.5).sum(),
        TASK.loss(TASK.standard(logits), TASK.predict(logits)),
    ):
        (slope,) = torch.autograd.grad(value, logits)
        assert slope.isfinite().all()
        assert not slope[logits == -torch.inf].any()


def test_criteria_measure_the_log_probability_of_the_span() -> None:
    full, reduced = drawn(3, 6, 3), drawn(3, 6, 4)
    spans = [tuple(span) for span in TASK.predict(full).tolist()]
    for row, span in enumerate(spans):
        before = naive(full)[row][span]
        after = naive(reduced)[row].get(span, 0.0)
        comp = comprehensiveness_loss(full, reduced, "probability", task=TASK)[row].item()
        assert comp == pytest.approx(after - before, abs=1e-12)
        if after:
            lost = math.log(before) - math.log(after)
            suff = sufficiency_loss(full, reduced, "margin", 0.1, TASK)[row].item()
            assert suff == pytest.approx(0.1 + max(-0.1, lost), abs=1e-9)


def test_two_classes_stand_for_the_span_and_all_others() -> None:
    logits = drawn(3, 6, 5)
    spans = TASK.predict(logits)
    told, classes = TASK.contrast(logits, spans)
    assert classes.tolist() == [0, 0, 0]
    torch.testing.assert_close(told.softmax(-1)[:, 0], TASK.probability(logits, spans))


def test_predictions_move_with_what_is_kept_and_with_padding() -> None:
    kept = torch.tensor([[[True, True, False, True, True], [True, False, True, True, True]]])
    assert TASK.moved(torch.tensor([[1, 3]]), kept).tolist() == [[1, 2], [-1, 2]]
    items = encode_questions([row("a", "dull"), row("b", "soup", "the soup")], TOKENIZER, 64, 8)
    batch = collate(items, 0, "left")
    own = torch.tensor([item.answer for item in items])
    assert torch.equal(TASK.placed(own, batch), batch.answers)
    logits = torch.arange(batch.input_ids.numel() * 2.0).view(2, -1, 2)
    back = TASK.unpadded(logits, batch)
    short = int(batch.attention_mask[1].sum())
    assert torch.equal(back[0], logits[0])
    assert torch.equal(back[1, :short], logits[1, -short:])


def row(name: str, answer: str, context: str = CONTEXT) -> Row:
    return Row(
        name, ("the plot ?", context), answers=(Answer(answer, max(0, context.find(answer))),)
    )


def test_the_window_of_the_largest_total_logit_answers() -> None:
    rows = [row("long", "soup"), row("short", "the", "the dull plot"), row("other", "dull")]
    items = encode_questions(rows, TOKENIZER, 15, 2)
    assert len(items) > len(rows) + 2
    logits = torch.full((len(items), 15, 2), -torch.inf)
    for place, item in enumerate(items):
        for token, segment in enumerate(item.segment):
            if segment == 1:
                logits[place, token] = 0.01 * place
    soup = next(i for i, item in enumerate(items) if item.row.id == "long" and item.answer)
    first, last = items[soup].answer or (0, 0)
    logits[soup, first, 0] = logits[soup, last, 1] = 5.0
    chosen = TASK.chosen(items, logits)
    assert [items[place].row.id for place in chosen] == ["long", "short", "other"]
    assert chosen[0] == soup
    assert chosen[2] == len(items) - 1
    claims = TASK.claims([items[place] for place in chosen], logits[chosen], ())
    assert (claims[0].prediction, claims[0].gold, claims[0].correct) == ("soup", "soup", True)
    assert claims[0].span is not None
    assert CONTEXT[slice(*claims[0].span)] == "soup"
    assert TASK.right(items, logits).tolist()[0] is True
    assert claims[0].confidence == pytest.approx(naive(logits[[soup]].double())[0][first, last])


def test_a_row_that_comes_twice_has_two_answers() -> None:
    twice = [row("same", "soup")] * 2
    items = encode_questions(twice, TOKENIZER, 15, 2)
    chosen = TASK.chosen(items, drawn(len(items), 15, 7))
    assert len(chosen) == 2
    assert chosen[0] < len(items) // 2 <= chosen[1]


def test_the_right_one_of_several_answers_is_the_gold_one() -> None:
    answers = (Answer("plot was", 4), Answer("dull", 13))
    item = encode_questions([replace(row("a", "dull"), answers=answers)], TOKENIZER, 64, 8)[0]
    logits = torch.zeros(1, len(item.input_ids), 2)
    for token, offsets in enumerate(item.offsets):
        if item.segment[token] == 1 and offsets == (13, 17):
            logits[0, token] = 9.0
    claim = TASK.claims([item], logits, ())[0]
    assert (claim.prediction, claim.gold, claim.correct) == ("dull", "dull", True)
    bare = item._replace(row=replace(item.row, answers=None))
    assert TASK.claims([bare], logits, ())[0][3:5] == (None, None)


def test_the_leak_is_on_the_answer_itself() -> None:
    explainable = torch.tensor([[False, True, True, True], [False, True, True, True]])
    found = TASK.leak(explainable, torch.tensor([[2, 3], [0, 0]]))
    expected = [[0, 0, 0.5, 0.5], [0, 1 / 3, 1 / 3, 1 / 3]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_lessons_are_the_windows_that_hold_the_answer() -> None:
    items: list[Item] = encode_questions([row("a", "soup")], TOKENIZER, 15, 2)
    lessons = TASK.lessons(items)
    assert 0 < len(lessons) < len(items)
    assert all(item.answer for item in lessons)


def test_numbers_out_of_range_are_one_line() -> None:
    with pytest.raises(IvraError, match=r"^doc_stride is -1: expected 0 or more$"):
        QuestionAnswering(doc_stride=-1)
    with pytest.raises(IvraError, match=r"^max_answer_length is 0: expected at least 1$"):
        QuestionAnswering(max_answer_length=0)
