"""Clauses on the gradient of a criterion in the saliency."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.nn import functional

from ivra.contract.trial import Broken, Stage, Trial, projected
from ivra.contract.values import learn, steep
from ivra.losses import TOPK_GRADIENTS, Terms, View

STEP = 1e-4
LONGEST = 4
"""Tokens of a row that is differentiated one token at a time."""
SAME_WAY = 0.95
"""Least cosine between an approximate gradient and the difference quotient."""
KINDS = ("exact", "cut", "approximate")


def graph(trial: Trial) -> None:
    """a gradient reaches the saliency"""
    if not steep(learn(trial, trial.batch)):
        raise Broken("expected a gradient in the saliency that is not 0, got 0 for every token")


def derivative(trial: Trial) -> None:
    """the gradient in the saliency is what the criterion says it is"""
    kind = trial.criterion().derivative
    trial = replace(trial, lengths=tuple(min(length, LONGEST) for length in trial.lengths))
    if kind not in KINDS:
        raise Broken(f"expected derivative to be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "exact":
        _exact(trial)
    elif kind == "approximate":
        _approximate(trial)
    else:
        _exact_behind_the_cut(trial)
        for gradient in TOPK_GRADIENTS:
            _cut(trial.with_gradient(gradient))


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


def _jumps(trial: Trial, view: View) -> list[Tensor]:
    """For each keep: its change at a token whose saliency goes from the least to the most."""
    saliency = view.saliency.detach()
    ends = []
    for share in (1e-9, 2.0):
        found: list[Tensor] = []
        for place in range(saliency.shape[1]):
            lifted = saliency.clone()
            lifted[:, place] = share * saliency.amax(-1)
            lifted = torch.where(view.explainable, lifted, 0.0).requires_grad_()
            stage = Stage(trial.model())
            trial.terms(stage.view(trial.batch, lifted))
            kept = [keep for keep in stage.keeps if keep.requires_grad]
            found = found or [torch.zeros_like(saliency) for _ in kept]
            for change, keep in zip(found, kept, strict=True):
                change[:, place] = keep.detach()[:, place]
        ends.append(found)
    return [high - low for low, high in zip(*ends, strict=True)]


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
