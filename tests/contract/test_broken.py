"""A broken plugin of each kind is caught by the clause meant for it; a sound one by none."""

import random
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ivra.contract import CLAUSES, Trial, judge
from ivra.contract.models import Tiny
from ivra.data import Batch
from ivra.losses import (
    CUT_GRADIENTS,
    Comprehensiveness,
    Criterion,
    Simulatability,
    Sufficiency,
    Terms,
    View,
    top_k,
)

torch.set_num_threads(1)


class Sound(Criterion):
    """The sum of squares of the saliency."""

    name = "sound"

    def forward(self, view: View) -> Terms:
        return Terms(sound=self.rows(view))

    def rows(self, view: View) -> Tensor:
        return view.saliency.square().sum(-1)


class MeanOfRows(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view).mean()


class Column(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view)[:, None]


class ScalarMetric(Sound):
    def metric(self, view: View) -> Tensor:
        return super().rows(view).mean()


class InfiniteMetric(Sound):
    def metric(self, view: View) -> Tensor:
        return 1 / (view.saliency.sum(-1) - view.saliency.sum(-1))


class NeverDefined(Sound):
    def metric(self, view: View) -> Tensor:
        return torch.full_like(super().rows(view), torch.nan)


class DefinedOnceInABatch(Sound):
    def metric(self, view: View) -> Tensor:
        own = super().rows(view)
        return torch.where(torch.arange(len(own)) == 0, own, torch.nan)


class UndefinedOnTheLeft(Sound):
    def metric(self, view: View) -> Tensor:
        own = super().rows(view)
        return torch.where(view.batch.attention_mask[:, 0], own, torch.nan)


class LogOfZero(Sound):
    def rows(self, view: View) -> Tensor:
        return (view.saliency[:, 1:-1] * view.saliency[:, 1:-1].log()).sum(-1)


class RootOfZero(Sound):
    """Finite values, infinite gradient."""

    def rows(self, view: View) -> Tensor:
        return view.saliency.sqrt().sum(-1)


class Detached(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view).detach()


class Flat(Sound):
    """A graph that leads nowhere."""

    def rows(self, view: View) -> Tensor:
        return 0 * super().rows(view)


class OtherGradient(Sound):
    def rows(self, view: View) -> Tensor:
        other = view.saliency.pow(3).sum(-1)
        return super().rows(view).detach() + other - other.detach()


class Uphill(OtherGradient):
    derivative = "approximate"

    def rows(self, view: View) -> Tensor:
        value = Sound.rows(self, view)
        return 2 * value.detach() - value


class Undeclared(Sound):
    derivative = "exactly"  # type: ignore[assignment]


class OptionItLacks(Sound):
    derivative_options: ClassVar = {"smooth": True}


class NoMapping(Sound):
    derivative_options = ("smooth",)  # type: ignore[assignment]


class Crooked(OtherGradient):
    """The derivative with ``smooth`` alone."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def rows(self, view: View) -> Tensor:
        return Sound.rows(self, view) if self.smooth else super().rows(view)


class Smooth(Crooked):
    derivative_options: ClassVar = {"smooth": True}


class Cut(Sound):
    """Sufficiency of the top half, sound."""

    derivative = "cut"

    def keep(self, view: View, top: Tensor) -> Tensor:
        return top + (view.saliency - view.saliency.detach())

    def rows(self, view: View) -> Tensor:
        top = top_k(view.saliency, view.explainable, 50.0).to(view.saliency)
        alone = view.rerun(self.keep(view, top))
        return functional.cross_entropy(alone, view.predictions, reduction="none")


class CutBackwards(Cut):
    def keep(self, view: View, top: Tensor) -> Tensor:
        return top - (view.saliency - view.saliency.detach())


class CutAcrossRows(Cut):
    def keep(self, view: View, top: Tensor) -> Tensor:
        every = view.saliency + 0.1 * view.saliency.sum(0, keepdim=True)
        return top + (every - every.detach())


class CutWithoutGradient(Cut):
    def keep(self, view: View, top: Tensor) -> Tensor:
        return top


class Doubled(Cut):
    def keep(self, view: View, top: Tensor) -> Tensor:
        return 2 * super().keep(view, top)


class SampledBackwards(Comprehensiveness):
    def forward(self, view: View) -> Terms:
        found = super().forward(view)["comp"]
        if any(self._cuts._gradient == name for name in CUT_GRADIENTS):
            return Terms(comp=found)
        return Terms(comp=2 * found.detach() - found)


class Random(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view) * random.random()


class Scribbler(Sound):
    def rows(self, view: View) -> Tensor:
        view.logits.mul_(2)
        return super().rows(view)


class Littering(Sound):
    def inner_step(self, view: View) -> None:
        super().rows(view).sum().backward()


class AboutTheMean(Sound):
    def rows(self, view: View) -> Tensor:
        own = super().rows(view)
        return own - own.mean()


class ByPlace(AboutTheMean):
    pairwise = True

    def rows(self, view: View) -> Tensor:
        own = Sound.rows(self, view)
        return own * torch.arange(1, len(own) + 1).to(own)


class ByColumn(Sound):
    def rows(self, view: View) -> Tensor:
        return (view.saliency * torch.arange(view.saliency.shape[1]).to(view.saliency)).sum(-1)


class OverWidth(Sound):
    def rows(self, view: View) -> Tensor:
        return view.saliency.square().mean(-1)


class IdsNotPad(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view) / (view.batch.input_ids != 0).sum(-1)


class OverRange(Sound):
    def rows(self, view: View) -> Tensor:
        high = view.saliency.amax(-1)
        low = view.saliency.masked_fill(~view.explainable, torch.inf).amin(-1)
        return super().rows(view) / (high - low)


class SecondBest(Sound):
    def rows(self, view: View) -> Tensor:
        return view.saliency.topk(2, dim=-1).values[:, 1]


class OverTheLargest(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view) / view.saliency.max()


class NothingWithoutRows(Sound):
    def rows(self, view: View) -> Tensor:
        return super().rows(view) if len(view.batch) else torch.zeros(0)


class AnnotatedOnly(Sound):
    def rows(self, view: View) -> Tensor:
        if not bool(view.annotated.any()):
            return torch.zeros(len(view.batch))
        return super().rows(view) * view.annotated


class Overflowing(Sound):
    def rows(self, view: View) -> Tensor:
        return (1e7 * view.saliency).square().sum(-1) / 1e14


class Rounded(Sound):
    def rows(self, view: View) -> Tensor:
        return (100 + super().rows(view)) - 100


CAUGHT = [
    ("shape", MeanOfRows, "of shape (): expected one loss a row, (4,)"),
    ("shape", Column, "of shape (4, 1): expected one loss a row, (4,)"),
    ("shape", ScalarMetric, "expected a metric (4,), got ()"),
    ("finite", InfiniteMetric, "expected a metric that is finite or NaN, got [inf"),
    ("metric", NeverDefined, "several tokens, some of them marked, got [nan, nan, nan, nan, nan]"),
    ("metric", DefinedOnceInABatch, "nan, nan, nan, nan]"),
    ("padding side", UndefinedOnTheLeft, "expected the metric"),
    ("one by one", DefinedOnceInABatch, "in row 0, got nan"),
    ("finite", LogOfZero, "not finite, nan in row"),
    ("finite", RootOfZero, "expected a finite gradient in the saliency, got inf"),
    ("graph", Detached, "expected terms that carry a gradient, got constants"),
    ("graph", Flat, "got 0 for every token"),
    ("derivative", OtherGradient, "expected the derivative of the terms"),
    ("derivative", Uphill, "got cosine -1.000"),
    ("derivative", Undeclared, "exact, cut, approximate, got 'exactly'"),
    ("derivative", OptionItLacks, "that it has and takes, got: criterion 'sound' has no options"),
    ("derivative", NoMapping, "expected derivative_options to be a mapping, got tuple"),
    ("derivative", Crooked, "expected the derivative of the terms"),
    ("derivative", SampledBackwards, "got the opposite on average over 8 draws"),
    ("derivative", CutBackwards, "got the opposite"),
    ("derivative", CutAcrossRows, "got another's"),
    ("derivative", CutWithoutGradient, "carries the saliency's gradient, got none"),
    ("repeats", Random, "expected term 'sound'"),
    ("inputs", Scribbler, "expected logits as it was"),
    ("inputs", Littering, "expected no gradient left on the saliency"),
    ("one by one", AboutTheMean, "expected term 'sound' 0 in row 0"),
    ("row order", ByPlace, "expected term 'sound'"),
    ("padding side", ByColumn, "expected term 'sound'"),
    ("padding amount", OverWidth, "expected term 'sound'"),
    ("pad is a word", IdsNotPad, "expected term 'sound'"),
    ("removal", Doubled, "expected keep in [0, 1], got 2"),
    ("equal saliency", OverRange, "not finite"),
    ("one token", SecondBest, "got RuntimeError: selected index k out of range"),
    ("no rows", OverTheLargest, "got RuntimeError: max()"),
    ("no rows", NothingWithoutRows, "expected terms that carry a gradient, got constants"),
    ("no annotation", AnnotatedOnly, "expected terms that carry a gradient, got constants"),
    ("half precision", Overflowing, "not finite"),
    ("half precision", Rounded, "in bfloat16"),
]


@pytest.mark.parametrize(
    ("clause", "broken", "said"), CAUGHT, ids=lambda v: getattr(v, "__name__", v)
)
def test_a_broken_plugin_is_caught(clause: str, broken: type[Criterion], said: str) -> None:
    lengths = (3, 2) if clause == "derivative" else Trial.lengths
    verdict = judge(clause, Trial(broken.build, lengths))
    assert verdict.outcome == "fail"
    assert said in verdict.detail


def test_every_clause_catches_something() -> None:
    assert {clause for clause, _, _ in CAUGHT} == set(CLAUSES)


@pytest.mark.parametrize("sound", [Sound, Cut])
def test_a_sound_one_is_not(sound: type[Criterion]) -> None:
    verdicts = {name: judge(name, Trial(sound.build, (3, 4, 1))) for name in CLAUSES}
    assert [v for v in verdicts.values() if v.outcome == "fail"] == []
    silent = [name for name, v in verdicts.items() if v.outcome == "not applicable"]
    assert silent == ([] if sound is Cut else ["removal"])


def test_a_gradient_that_is_another_on_purpose_is_judged_under_the_options_declared() -> None:
    verdict = judge("derivative", Trial(Smooth.build))
    assert verdict.outcome == "pass"
    assert verdict.detail.endswith("is what the criterion says it is (with smooth = True)")
    verdict = judge("derivative", Trial(lambda setup: Smooth()))
    assert verdict.outcome == "fail"
    assert verdict.detail.endswith("(with smooth = True)")


def test_the_projection_of_the_hypergradient_is_no_derivative() -> None:
    """What the options that sim declares are for: without them it would fail."""
    trial = Trial(lambda setup: Simulatability(setup.new_student()), (3, 2))
    verdict = judge("derivative", trial)
    assert verdict.outcome == "fail"
    assert "expected a gradient along the difference quotient" in verdict.detail


def test_removal_that_is_no_deletion_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Tiny.rerun

    def masked(self: Tiny, batch: Batch, keep: Tensor) -> Tensor:
        if self.deletes:
            return honest(self, batch, keep)
        return self.backbone.rerun(batch, keep, "embedding")

    monkeypatch.setattr(Tiny, "rerun", masked)
    verdict = judge("removal", Trial(Sufficiency.build))
    assert verdict.outcome == "fail"
    assert "(tiny-electra, padding on the right)" in verdict.detail


def test_a_plugin_that_cannot_be_built_fails_every_clause() -> None:
    class Unbuildable(Sound):
        def __init__(self) -> None:
            raise TypeError("no student")

    verdict = judge("shape", Trial(Unbuildable.build))
    assert verdict[1:] == ("fail", "expected values, got TypeError: no student")
