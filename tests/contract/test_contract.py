"""Every criterion that the registry knows, held to every clause."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivra.contract import CLAUSES, Trial, check_criterion, judge
from ivra.contract.models import calm_student, tiny, tiny_student
from ivra.contract.rows import make_batch, make_items
from ivra.contract.trial import Stage
from ivra.errors import IvraError
from ivra.evaluation import delete
from ivra.losses import (
    TOPK_GRADIENTS,
    Consistency,
    Criterion,
    Plan,
    Setup,
    hidden_distances,
    known_criteria,
)
from ivra.losses.consistency import Distance
from ivra.losses.divergence import Divergence
from ivra.losses.fidelity import FidelityForm, Target
from ivra.losses.plausibility import PlausibilityForm
from ivra.losses.removal import BinsMode, RemovalForm
from ivra.losses.student import Hypergradient

torch.set_num_threads(1)

FORMS: dict[str, Callable[[Setup], Criterion]] = {
    **{name: known.criterion.build for name, known in known_criteria().items()},
}
"""Every criterion known, as a run builds it."""
SAYS_NOTHING = {
    ("sim", "removal"),
    ("cons", "removal"),
    ("cons", "one by one"),
    ("plaus", "removal"),
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
    elif form in ("sim", "comp", "suff", "cons", "plaus", "fidelity"):
        assert verdict.outcome == "pass", verdict.detail
    else:
        assert verdict.outcome != "fail", verdict.detail


def _cases() -> Iterator[tuple[str, dict[str, object], str]]:
    """Criteria with options of every kind, and a gradient of the cut."""
    for form in get_args(PlausibilityForm):
        yield "plaus", {"form": form}, "sampled"
    for divergence in get_args(Divergence):
        for distance in get_args(Distance):
            for form in ("ratio", "scale-free"):
                options = {"form": form, "divergence": divergence, "distance": distance}
                yield "cons", options, "sampled"
    yield "cons", {"form": "clustering"}, "sampled"
    for name in ("comp", "suff"):
        for form in get_args(RemovalForm):
            for gradient in TOPK_GRADIENTS:
                yield name, {"form": form}, gradient
        for mode in get_args(BinsMode):
            yield name, {"bins_mode": mode}, "sampled"
        yield name, {"samples": 5, "temperature": 0.3}, "perturbed"
    for form, target in itertools.product(get_args(FidelityForm), get_args(Target)):
        yield "fidelity", {"form": form, "target": target}, "sampled"
    for method in get_args(Hypergradient):
        for pilot in (True, False):
            yield "sim", {"pilot": pilot, "hypergradient": method}, "sampled"
    yield "sim", {"form": "guided", "head_start": 0.0}, "sampled"


def _quick(name: str, options: dict[str, object], gradient: str) -> bool:
    if name in ("comp", "suff"):
        forms = {"comp": ("absolute", "kl"), "suff": ("difference", "probability")}[name]
        return gradient == "sampled" and options.get("form") in forms
    return name != "sim" or options.get("pilot", True) is True


@pytest.mark.parametrize(
    ("name", "options", "gradient"),
    [
        pytest.param(
            *case,
            marks=[] if _quick(*case) else pytest.mark.slow,
            id=" ".join(map(str, (case[0], *case[1].values(), case[2]))),
        )
        for case in _cases()
    ],
)
def test_every_option_holds_the_clauses(
    name: str, options: dict[str, object], gradient: str
) -> None:
    """Those that an option can break: values and gradients on the stand-in."""
    trial = Trial(known_criteria()[name].criterion.build, gradient=gradient, options=options)
    for clause in ("finite", "graph", "derivative", "equal saliency", "no rows", "half precision"):
        verdict = judge(clause, trial)
        assert verdict.outcome == "pass", verdict


@pytest.mark.parametrize("normaliser", ["sparsemax", "entmax15"])
def test_the_fenchel_young_loss_of_every_normaliser_holds_every_clause(normaliser: str) -> None:
    def make(setup: Setup) -> Criterion:
        return Consistency("ratio", "fenchel-young", normaliser=normaliser)

    for verdict in check_criterion(make):
        assert verdict.outcome != "fail", verdict


def test_the_step_of_the_student_is_not_cut_short_where_the_derivative_is_judged() -> None:
    """Where it is, the hypergradient takes the factor as a constant, and is no derivative."""
    for seed in range(3):
        trial = Trial(Consistency.build, seed=seed)
        student = calm_student()
        view = trial.view(student.study_rows())
        ahead = student.look_ahead(view, trial.view(), Plan())
        assert ahead.rate == student.rate
    loud = tiny_student()
    assert loud.look_ahead(trial.view(loud.study_rows()), view, Plan()).rate < loud.rate


@given(
    lengths=st.lists(st.integers(1, 7), min_size=3, max_size=4).filter(lambda n: max(n) > 2),
    seed=st.integers(0, 20),
    clause=st.sampled_from([name for name in CHEAP if name not in ("removal", "half precision")]),
    gradient=st.sampled_from(TOPK_GRADIENTS),
)
@settings(max_examples=5, deadline=None, derandomize=True)
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
