"""Run with ``pytest`` once the package is installed."""

import math
from typing import cast

import pytest
import torch
from ivra_brevity import Brevity, entropy

from ivra import View
from ivra.contract import check_criterion
from ivra.losses import Weighted, check_terms, known_criteria, parse_criteria


class Saliency:
    """All that brevity reads of a view."""

    def __init__(self, saliency: torch.Tensor) -> None:
        self.saliency = saliency


@pytest.mark.parametrize("n", [1, 2, 7])
def test_n_equal_tokens_have_log_n_nats(n: int) -> None:
    rows = torch.zeros(3, 9, dtype=torch.float64)
    rows[:, :n] = 1 / n
    assert entropy(rows).tolist() == pytest.approx([math.log(n)] * 3, abs=1e-12)


def test_gradient_is_finite_where_tokens_have_no_saliency() -> None:
    rows = torch.tensor([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]], requires_grad=True)
    entropy(rows).sum().backward()
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()
    assert rows.grad[rows == 0].eq(0).all()


def test_a_step_down_the_gradient_makes_it_shorter() -> None:
    logits = torch.tensor([[0.3, 0.0, -0.2]], requires_grad=True)
    before = entropy(logits.softmax(-1)).sum()
    before.backward()
    assert logits.grad is not None
    assert entropy((logits - logits.grad).softmax(-1)).sum() < before


def test_its_terms_are_what_ivra_expects() -> None:
    view = cast(View, Saliency(torch.full((4, 5), 0.2)))
    terms = check_terms(Brevity(), Brevity()(view), rows=4)
    assert list(terms) == ["brevity"]


def test_it_holds_the_contract() -> None:
    verdicts = check_criterion(Brevity.build)
    assert [verdict for verdict in verdicts if verdict.outcome == "fail"] == []


def test_ivra_lists_it() -> None:
    known = known_criteria()["brevity"]
    assert known.criterion is Brevity
    assert known.package == "ivra-brevity 0.1.0"
    assert parse_criteria("suff,brevity:0.3") == [Weighted("suff", 1.0), Weighted("brevity", 0.3)]
