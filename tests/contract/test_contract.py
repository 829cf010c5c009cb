"""Every criterion that the registry knows, held to every clause."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivra.contract import CLAUSES, Trial, check_criterion, judge
from ivra.contract.models import tiny
from ivra.contract.rows import make_batch, make_items
from ivra.contract.trial import Stage
from ivra.errors import IvraError
from ivra.evaluation import delete
from ivra.losses import (
    TOPK_GRADIENTS,
    Consistency,
    Criterion,
    Setup,
    hidden_distances,
    known_criteria,
)

torch.set_num_threads(1)

FORMS: dict[str, Callable[[Setup], Criterion]] = {
    **{name: known.criterion.build for name, known in known_criteria().items()},
    "cons, equation 13": lambda setup: Consistency(scale_free=False),
}
"""Every criterion known, as a run builds it, and forms that a run cannot choose."""
SAYS_NOTHING = {
    ("sim", "removal"),
    ("cons", "removal"),
    ("cons", "one by one"),
    ("cons, equation 13", "removal"),
    ("cons, equation 13", "one by one"),
}
"""What does not apply to ours; of every other pair the clause has to hold."""
CHEAP = [
    name for name in CLAUSES if name not in ("padding side", "padding amount", "pad is a word")
]
"""Clauses to try on many shapes; the others run real models."""


@pytest.mark.parametrize("clause", CLAUSES)
@pytest.mark.parametrize("form", FORMS)
def test_every_criterion_holds_every_clause(form: str, clause: str) -> None:
    verdict = judge(clause, Trial(FORMS[form]))
    if (form, clause) in SAYS_NOTHING:
        assert verdict.outcome == "not applicable", verdict.detail
    elif form.partition(",")[0] in ("sim", "comp", "suff", "cons"):
        assert verdict.outcome == "pass", verdict.detail
    else:
        assert verdict.outcome != "fail", verdict.detail


@given(
    lengths=st.lists(st.integers(1, 7), min_size=3, max_size=4).filter(lambda n: max(n) > 2),
    seed=st.integers(0, 20),
    clause=st.sampled_from([name for name in CHEAP if name not in ("removal", "half precision")]),
    gradient=st.sampled_from(TOPK_GRADIENTS),
)
@settings(max_examples=8, deadline=None, derandomize=True)
@pytest.mark.parametrize("form", [form for form in FORMS if form != "sim"])
def test_the_shape_of_the_rows_does_not_matter(
    form: str, lengths: list[int], seed: int, clause: str, gradient: str
) -> None:
    trial = Trial(FORMS[form], tuple(lengths), seed, gradient)
    assert judge(clause, trial).outcome != "fail", judge(clause, trial).detail


def test_only_known_clauses_can_be_asked_for() -> None:
    with pytest.raises(IvraError, match="unknown clause 'shap'"):
        check_criterion(Consistency.build, ["shap"])
    (verdict,) = check_criterion(Consistency.build, ["shape"])
    assert verdict == ("shape", "pass", "terms and metric are one number a row, (B,)")


def test_every_clause_says_what_holds() -> None:
    for name, clause in CLAUSES.items():
        said = clause.__doc__
        assert said is not None, name
        assert "\n" not in said, name


def test_the_stand_in_takes_a_token_kept_at_0_for_deleted_and_is_smooth() -> None:
    """What the clauses rest on: otherwise they would judge the stand-in."""
    trial = Trial(Consistency.build, lengths=(4,))
    batch = trial.batch
    keep = torch.ones(1, 6, dtype=torch.float64)
    keep[0, 2] = 0
    (item,) = trial.items
    short = delete(item, (True, True, False, True, True, True))
    model = trial.model()
    torch.testing.assert_close(model.rerun(batch, keep), model.show(make_batch([short])).logits)
    soft = torch.rand(1, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: model.rerun(batch, k), soft)


def test_the_saliencies_shown_are_what_they_are_called() -> None:
    trial = Trial(Consistency.build)
    rows = trial.batch.explainable
    shown = {k: trial.model(k).show(trial.batch).saliency for k in ("soft", "sparse", "one-hot")}
    for saliency in shown.values():
        torch.testing.assert_close(saliency.sum(-1), torch.ones(4, dtype=torch.float64))
        assert (saliency[~rows] == 0).all()
    assert (shown["soft"][rows] > 0).all()
    assert ((shown["sparse"] > 0).sum(-1) < rows.sum(-1)).any()
    assert ((shown["sparse"] > 0).sum(-1) > 1).any()
    assert (shown["one-hot"].amax(-1) == 1).all()
    equal = trial.model("equal").show(trial.batch).saliency
    torch.testing.assert_close(equal, rows / rows.sum(-1, keepdim=True).double())


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_row_of_nothing_but_the_padding_id_is_read_at_its_first_token(side: str) -> None:
    """The model's head looks for the last id that is not padding: pad = eos may leave it none."""
    backbone = tiny("tiny-gpt2")
    backbone.model.config.pad_token_id = 9
    items = make_items([3, 5], 1, special=False)
    lost = items[0]._replace(input_ids=[9, 9, 9])
    alone = backbone.encode(make_batch([lost], pad=9)).logits
    together = make_batch([lost, items[1]], pad=9, side=side, extra=1)
    torch.testing.assert_close(backbone.encode(together).logits[:1], alone)
    keep = together.explainable.double()
    keep[0, keep[0].nonzero()[:2, 0]] = 0
    short = delete(lost, (False, False, True))
    expected = backbone.encode(make_batch([short], pad=9)).logits
    torch.testing.assert_close(backbone.rerun(together, keep)[:1], expected, rtol=0, atol=1e-4)


def test_distances_of_long_rows_do_not_overflow_in_half_precision() -> None:
    trial = Trial(Consistency.build, lengths=(400, 380, 3))
    view = Stage(trial.model(), rounding=torch.float16).view(trial.batch)
    assert view.hidden is not None
    exact = hidden_distances(view.hidden, trial.batch.attention_mask)
    half = hidden_distances(view.hidden.half(), trial.batch.attention_mask)
    assert float(exact.square().max()) > torch.finfo(torch.float16).max
    torch.testing.assert_close(half.double(), exact, rtol=1e-3, atol=1e-3)
    assert math.isfinite(float(half.sum()))
