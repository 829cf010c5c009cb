"""Clauses on the gradient of a criterion in the saliency."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.nn import functional

from ivra.contract.models import calm_student
from ivra.contract.trial import Broken, Stage, Trial, projected
from ivra.contract.values import learn, slopes, steep
from ivra.errors import IvraError
from ivra.losses import CUT_GRADIENTS, Criterion, Terms, View
from ivra.losses.options import checked_values
from ivra.shapes import Saliency

STEP = 1e-4
LONGEST = 4
"""Tokens of a row that is differentiated one token at a time."""
SAME_WAY = 0.95
"""Least cosine between an approximate gradient and the difference quotient."""
DRAWS = 8
"""Seeds over which a gradient that is drawn is averaged."""
KINDS = ("exact", "cut", "approximate")


def graph(trial: Trial) -> None:
    """a gradient reaches the saliency"""
    if not steep(learn(trial, trial.batch)):
        raise Broken("expected a gradient in the saliency that is not 0, got 0 for every token")


def derivative(trial: Trial) -> str:
    """the gradient in the saliency is what the criterion says it is"""
    criterion = trial.criterion()
    declared = _declared(criterion)
    trial = replace(
        trial,
        lengths=tuple(min(length, LONGEST) for length in trial.lengths),
        options={**trial.options, **declared},
        new_student=calm_student,
    )
    under = ", ".join(f"{name} = {value}" for name, value in declared.items())
    under = f" (with {under})" if under else ""
    try:
        _derivative(trial, criterion.derivative)
    except Broken as error:
        raise Broken(f"{error}{under}") from error
    return under


def _declared(criterion: Criterion) -> dict[str, Any]:
    """The criterion's ``derivative_options``, if it has such options."""
    declared = criterion.derivative_options
    if not isinstance(declared, Mapping):
        raise Broken(f"expected derivative_options to be a mapping, got {type(declared).__name__}")
    try:
        return checked_values(criterion.name, criterion.options(), declared)
    except IvraError as error:
        raise Broken(f"expected derivative_options that it has and takes, got: {error}") from error


def _derivative(trial: Trial, kind: str) -> None:
    if kind not in KINDS:
        raise Broken(f"expected derivative to be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "exact":
        _exact(trial)
    elif kind == "approximate":
        _approximate(trial)
    else:
        _exact_behind_the_cut(trial.with_gradient(CUT_GRADIENTS[0]))
        for gradient in CUT_GRADIENTS:
            _cut(trial.with_gradient(gradient))
        _whole(trial.with_gradient("sampled"))


def _scores(views: Sequence[View]) -> list[Tensor]:
    """Scores of the explainable tokens whose softmax is the saliency of each view."""
    return [view.saliency.detach()[view.explainable].log().requires_grad_() for view in views]


def _played(trial: Trial) -> Stage:
    """A stage after one call of ``forward``."""
    stage = Stage(trial.model())
    trial.terms(stage.view(trial.batch))
    return stage


def _told(
    trial: Trial, scores: Tensor, steered: Sequence[Tensor] = (), nudges: Sequence[Tensor] = ()
) -> Terms:
    """The terms as a function of the saliency's scores, of other rows' and of nudges of keeps."""
    stage = Stage(trial.model(), steered=steered, nudges=nudges)
    return trial.terms(stage.view(trial.batch, projected(scores, trial.batch)))


def _check(trial: Trial, steered: Sequence[Tensor], nudges: Sequence[Tensor], hint: str) -> None:
    (scores,) = _scores([trial.view()])

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        middle = 1 + len(steered)
        return tuple(_told(trial, values[0], values[1:middle], values[middle:]).values())

    try:
        gradcheck(function, (scores, *steered, *nudges), eps=1e-6, atol=1e-5, rtol=1e-3)
    except GradcheckError as error:
        said = " ".join(str(error).split())
        raise Broken(f"expected {hint}, got another: {said[:160]}") from error


def _exact(trial: Trial) -> None:
    steered = _scores(_played(trial).others)
    hint = "the derivative of the terms (or derivative = 'cut' or 'approximate' declared)"
    _check(trial, steered, (), hint)


def _exact_behind_the_cut(trial: Trial) -> None:
    """What reaches the keeps, and what goes past them, is the derivative of the terms."""
    stage = _played(trial)
    nudges = [torch.zeros_like(keep, requires_grad=True) for keep in stage.keeps]
    if not any(keep.requires_grad for keep in stage.keeps):
        raise Broken("expected a rerun whose keep carries the saliency's gradient, got none")
    _check(trial, _scores(stage.others), nudges, "the derivative of the terms in keep")


def _cut(trial: Trial) -> None:
    """From keep to the saliency: finite, within a row, and the way the cut itself goes."""
    stage = Stage(trial.model())
    view = stage.view(trial.batch)
    trial.terms(view)
    keeps = [keep for keep in stage.keeps if keep.requires_grad]
    real = _jumps(trial, view)
    agreed = 0.0
    for keep, jump in zip(keeps, real, strict=True):
        own = torch.zeros_like(jump)
        for row in range(jump.shape[0]):
            for place in view.explainable[row].nonzero()[:, 0].tolist():
                (slope,) = torch.autograd.grad(keep[row, place], view.saliency, retain_graph=True)
                if not bool(torch.isfinite(slope).all()):
                    raise Broken("expected a finite gradient from keep to the saliency, got none")
                if bool((slope.abs().sum(-1)[torch.arange(len(slope)) != row] != 0).any()):
                    raise Broken("expected keep to hang on its own row's saliency, got another's")
                own[row, place] = slope[row, place]
        agreed += float((own * jump).sum())
    moved = any(bool((jump != 0).any()) for jump in real)
    if moved and not agreed > 0:
        raise Broken(
            "expected the gradient of keep to have the sign of what keep does when a token's "
            f"saliency rises, got the opposite ({trial.gradient})"
        )


def _whole(trial: Trial) -> None:
    """From the terms to the saliency, over several draws: the way the terms go themselves.

    For a gradient that asks what the loss of whole cuts is, and so reaches no keep.
    """
    if any(keep.requires_grad for keep in _played(trial).keeps):
        _cut(trial)
        return
    agreed, moved = 0.0, False
    for draw in range(DRAWS):
        drawn = replace(trial, seed=trial.seed + draw)
        view = drawn.view()
        saliency = view.saliency.detach()
        (slope,) = slopes(drawn.terms(view).total().sum(), [view])
        jump = torch.zeros_like(saliency)
        for place in range(saliency.shape[1]):
            low, high = (
                drawn.terms(Stage(drawn.model()).view(drawn.batch, lifted)).total().detach()
                for lifted in _lifted(view, place)
            )
            jump[:, place] = high - low
        moved = moved or bool((jump != 0).any())
        agreed += float((slope * saliency * jump).sum())
    if moved and not agreed > 0:
        raise Broken(
            "expected a gradient with the sign of what the terms do when a token's saliency "
            f"rises, got the opposite on average over {DRAWS} draws ({trial.gradient})"
        )


def _lifted(view: View, place: int) -> Iterator[Saliency]:
    """The saliency with that of one place at the least, then at the most."""
    saliency = view.saliency.detach()
    for share in (1e-9, 2.0):
        lifted = saliency.clone()
        lifted[:, place] = share * saliency.amax(-1)
        yield torch.where(view.explainable, lifted, 0.0).requires_grad_()


def _jumps(trial: Trial, view: View) -> list[Tensor]:
    """For each keep: its change at a token whose saliency goes from the least to the most."""
    changes: list[Tensor] = []
    for place in range(view.saliency.shape[1]):
        ends = []
        for lifted in _lifted(view, place):
            stage = Stage(trial.model())
            trial.terms(stage.view(trial.batch, lifted))
            ends.append([keep.detach() for keep in stage.keeps if keep.requires_grad])
        changes = changes or [torch.zeros_like(view.saliency.detach()) for _ in ends[0]]
        for change, low, high in zip(changes, *ends, strict=True):
            change[:, place] = high[:, place] - low[:, place]
    return changes


def _approximate(trial: Trial) -> None:
    """The direction of the gradient of the mean term is that of the difference quotient."""
    inputs = [*_scores([trial.view()]), *_scores(_played(trial).others)]

    def mean(values: Sequence[Tensor]) -> Tensor:
        return _told(trial, values[0], values[1:]).total().mean()

    found = torch.autograd.grad(mean(inputs), inputs, allow_unused=True, materialize_grads=True)
    quotients = []
    for which, scores in enumerate(inputs):
        for place in range(len(scores)):
            ends = []
            for sign in (1, -1):
                moved = [value.detach().clone() for value in inputs]
                moved[which][place] += sign * STEP
                ends.append(mean(moved).detach())
            quotients.append((ends[0] - ends[1]) / (2 * STEP))
    expected, got = torch.stack(quotients), torch.cat(found)
    cosine = float(functional.cosine_similarity(expected, got, dim=0))
    if not cosine >= SAME_WAY:
        raise Broken(
            f"expected a gradient along the difference quotient (cosine >= {SAME_WAY}), got "
            f"cosine {cosine:.3f}"
        )
