"""Clauses on the values of a criterion."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ivra.contract.models import Kind, Model, Tiny, tiny
from ivra.contract.rows import FIRST, make_batch, make_items, marked, pick, unlabelled
from ivra.contract.trial import Broken, NotApplicable, Stage, Trial, Values, compare
from ivra.data import Batch
from ivra.losses import View

KINDS: tuple[Kind, ...] = ("soft", "sparse", "one-hot")
LONG = (120, 60, 3, 90, 30, 2, 75)
"""Tokens of the rows in half precision: what overflows, overflows there."""
ORDINARY = (6, 9, 5, 8, 7)
"""Tokens of rows that no metric has a reason to leave out."""
REMOVAL_TOLERANCE = 1e-4
"""A token that is removed in attention keeps a millionth of its weight."""
REAL = ("tiny-electra", "tiny-gpt2")
HALVES = {torch.bfloat16: 0.05, torch.float16: 0.01}
"""How far a value in half precision may be from the exact one, relative to 1 + its size."""


def slopes(total: Tensor, views: list[View]) -> list[Tensor]:
    """Gradients of ``total`` in the saliencies of ``views``; zeros where it does not depend.

    Raises:
        Broken: ``total`` has no graph, or a gradient is not finite.
    """
    if not total.requires_grad:
        raise Broken("expected terms that carry a gradient, got constants: do not detach them")
    found = torch.autograd.grad(
        total, [view.saliency for view in views], allow_unused=True, materialize_grads=True
    )
    for slope in found:
        if not bool(torch.isfinite(slope).all()):
            row, place = torch.isfinite(slope).logical_not().nonzero()[0].tolist()
            raise Broken(
                f"expected a finite gradient in the saliency, got {slope[row, place]} at token "
                f"{place} of row {row}"
            )
    return list(found)


def steep(found: Sequence[Tensor]) -> bool:
    """Whether any of the gradients is not 0."""
    return any(bool((slope != 0).any()) for slope in found)


def learn(trial: Trial, batch: Batch, kind: Kind = "soft") -> list[Tensor]:
    """One step as in training; terms and gradients must be finite, the metric finite or NaN.

    Returns:
        The gradients in the saliency of the rows, and of other rows the criterion asked for.
    """
    stage = Stage(trial.model(kind))
    view = stage.view(batch)
    criterion = trial.criterion()
    criterion.inner_step(view)
    terms = trial.terms(view, criterion)
    found = slopes(terms.total().sum(), [view, *stage.others])
    trial.metric(view)
    return found


def shape(trial: Trial) -> None:
    """terms and metric are one number a row, (B,)"""
    for rows in (trial.batch, pick(trial.batch, [0])):
        trial.values(trial.view(rows))


def finite(trial: Trial) -> None:
    """values and gradients are finite, also where the saliency has zeros or is one token"""
    for kind in KINDS:
        learn(trial, trial.batch, kind)


def metric(trial: Trial) -> None:
    """the metric is defined (not NaN) in every row of an ordinary batch"""
    items = [marked(item) for item in make_items(ORDINARY, trial.seed)]
    found = trial.metric(trial.view(make_batch(items)))
    if bool(found.isnan().any()):
        raise Broken(
            "expected a metric that is defined for labelled rows of several tokens, some of them "
            f"marked, got {found.tolist()}"
        )


def repeats(trial: Trial) -> None:
    """the same seed gives the same values"""
    compare(trial.values(trial.view()), trial.values(trial.view()), 0.0)


def inputs(trial: Trial) -> None:
    """what a view holds is left as it was, and no gradient is left on it"""
    view = trial.view()
    shown = {**vars(view.batch), **vars(view)}
    held = {name: value for name, value in shown.items() if isinstance(value, Tensor)}
    before = {name: value.detach().clone() for name, value in held.items()}
    criterion = trial.criterion()
    criterion.inner_step(view)
    trial.terms(view, criterion)
    trial.metric(view, criterion)
    for name, value in before.items():
        if not torch.equal(value, held[name]):
            raise Broken(f"expected {name} as it was, got other values: do not write into it")
    if view.saliency.grad is not None:
        raise Broken("expected no gradient left on the saliency, got one: use autograd.grad")


def one_by_one(trial: Trial) -> None:
    """a batch gives what its rows give one by one"""
    if trial.criterion().pairwise:
        raise NotApplicable("it says that rows depend on each other (pairwise)")
    whole = trial.values(trial.view())
    for row, item in enumerate(trial.items):
        alone = trial.values(trial.view(make_batch([item])))
        compare(alone, whole.at([row]))


def row_order(trial: Trial) -> None:
    """rows in another order give their values in that order"""
    order = torch.randperm(
        len(trial.items), generator=torch.Generator().manual_seed(trial.seed + 1)
    ).tolist()
    order = order if order != sorted(order) else order[::-1]
    found = trial.values(trial.view(pick(trial.batch, order)))
    compare(trial.values(trial.view()).at(order), found)


def _models(trial: Trial) -> Iterator[tuple[str, Model]]:
    yield "", trial.model()
    for name in REAL:
        yield f" ({name})", Tiny(tiny(name))


def _values_of(trial: Trial, model: Model, batch: Batch, where: str) -> Values:
    try:
        return trial.values(Stage(model).view(batch))
    except Broken as error:
        raise Broken(f"{error}{where}") from error


def _padded(trial: Trial, batches: list[Batch]) -> None:
    """All batches hold the trial's rows and differ in their padding alone."""
    for where, model in _models(trial):
        expected = _values_of(trial, model, trial.batch, where)
        for batch in batches:
            found = _values_of(trial, model, batch, where)
            try:
                compare(expected, found)
            except Broken as error:
                raise Broken(f"{error}{where}") from error


def padding_side(trial: Trial) -> None:
    """padding on the left or on the right is the same"""
    _padded(trial, [make_batch(trial.items, side="left")])


def padding_amount(trial: Trial) -> None:
    """more padding changes nothing, whatever stands there"""
    _padded(
        trial, [make_batch(trial.items, side=s, extra=n) for s, n in (("right", 3), ("left", 5))]
    )


def pad_is_word(trial: Trial) -> None:
    """padding with the id of a word (pad = eos) changes nothing"""
    word = trial.items[-1].input_ids[1]
    if word < FIRST:
        raise NotApplicable("its last row holds no word")
    for side in ("right", "left"):
        batch = make_batch(trial.items, pad=word, side=side)
        compare(trial.values(trial.view()), trial.values(trial.view(batch)))
    backbone = tiny("tiny-gpt2")
    bare = make_items(trial.lengths, trial.seed, special=False)
    backbone.model.config.pad_token_id = bare[-1].input_ids[0]
    model = Tiny(backbone)
    one, other = (
        trial.values(Stage(model).view(make_batch(bare, pad=backbone.pad_id, side=side)))
        for side in ("right", "left")
    )
    compare(one, other)


def _keeps(trial: Trial, ask: Callable[[View], object]) -> list[Tensor]:
    """What the stand-in is asked to keep of its explainable tokens."""
    stage = Stage(trial.model())
    ask(stage.view(trial.batch))
    return [keep.detach()[trial.batch.explainable] for keep in stage.keeps]


def removal(trial: Trial) -> None:
    """removing tokens in attention gives what deleting them gives"""
    asked = {"terms": _keeps(trial, trial.terms), "metric": _keeps(trial, trial.metric)}
    for keep in (*asked["terms"], *asked["metric"]):
        if float(keep.min()) < 0 or float(keep.max()) > 1:
            worst = keep[(keep - 0.5).abs().argmax()]
            raise Broken(f"expected keep in [0, 1], got {worst:.6g}")
    if not any(asked.values()):
        raise NotApplicable("it reruns nothing")
    hard = {
        what for what, keeps in asked.items() if all(((k == 0) | (k == 1)).all() for k in keeps)
    }
    if not hard:
        raise NotApplicable("it keeps tokens in part, which no deletion does")
    for name in REAL:
        backbone = tiny(name)
        for side in ("right", "left"):
            batch = make_batch(trial.items, side=side)
            found, expected = (
                trial.values(Stage(Tiny(backbone, deletes)).view(batch))
                for deletes in (False, True)
            )
            if "terms" not in hard:
                found, expected = (replace(values, terms={}) for values in (found, expected))
            if "metric" not in hard:
                found = replace(found, metric=expected.metric)
            try:
                compare(expected, found, REMOVAL_TOLERANCE)
            except Broken as error:
                raise Broken(f"{error} ({name}, padding on the {side})") from error


def equal_saliency(trial: Trial) -> None:
    """the same saliency on every token gives finite values and gradients"""
    learn(trial, trial.batch, "equal")


def one_token(trial: Trial) -> None:
    """rows of one token, in a batch and alone, give finite values and gradients"""
    for lengths in ((1,), (1, 1, 1), (1, 4, 1)):
        for special in (True, False):
            for kind in (*KINDS, "equal"):
                learn(trial, make_batch(make_items(lengths, trial.seed, special)), kind)


def no_rows(trial: Trial) -> None:
    """a batch of no rows gives no values, and keeps the graph"""
    view = trial.view(make_batch([]))
    slopes(trial.terms(view).total().sum(), [view])
    trial.values(view)


def no_annotation(trial: Trial) -> None:
    """rows without label and rationale give finite values, and keep the graph"""
    learn(trial, unlabelled(trial.batch))


def _still_there(wanted: Tensor, found: Sequence[Tensor]) -> None:
    """A gradient is there if the exact one is there in most rows."""
    most = 2 * int((wanted != 0).any(-1).sum()) > len(wanted)
    if most and not steep(found):
        raise Broken("expected a gradient that is not 0, got 0 for every token")


def half_precision(trial: Trial) -> None:
    """bfloat16 and float16 give finite values near the exact ones, also for long rows"""
    refused = []
    batch = make_batch(make_items(LONG, trial.seed))
    for dtype, tolerance in HALVES.items():
        rounded, stage = Stage(trial.model(), rounding=dtype), Stage(trial.model(), dtype)
        exact, view = rounded.view(batch), stage.view(batch)
        try:
            found = trial.values(view)
            total = trial.terms(view).total().sum()
        except (NotImplementedError, RuntimeError) as error:
            if "not implemented for" not in str(error):
                raise
            refused.append(" ".join(str(error).split()))
            continue
        (wanted, *_) = slopes(trial.terms(exact).total().sum(), [exact])
        try:
            compare(trial.values(exact), found, tolerance)
            if float(wanted.abs().max()) < torch.finfo(dtype).max / 4:
                _still_there(wanted, slopes(total, [view, *stage.others]))
        except Broken as error:
            raise Broken(f"{error} in {str(dtype).removeprefix('torch.')}") from error
    if len(refused) == len(HALVES):
        raise NotApplicable(f"an operation has no half precision here ({refused[0]})")
