"""AOPC comprehensiveness and sufficiency by removing tokens for real.

DeYoung et al. 2020 (ERASER); Xie et al. 2024 (IvRA), equations 8 and 9; normalised: Carton et
al. 2020.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Item
from ivra.evaluation.aopc_settings import IMPORTANT, OURS, AopcSettings
from ivra.evaluation.cuts import padded_scores, removable, top_tokens
from ivra.evaluation.prediction import TOKEN_BUDGET, predict
from ivra.evaluation.reduced import LIVE_TOKENS, ReducedRows, chunks
from ivra.losses import probability_of
from ivra.shapes import BinLogits, BinMask, BinRows, Labels, Logits, Outputs, Rows, TopTokens

Keep = tuple[bool, ...]
"""Which tokens of a row stay, special tokens included."""
_T = TypeVar("_T")
_LEAST_NULL = 1e-5
_SHIFT = 1e-4


class Aopc(NamedTuple):
    """Figures of each row (over its bins) and of each bin (mean over rows).

    ``comp`` and ``suff`` are differences of probabilities in ``[-1, 1]``; comprehensiveness is
    better high, sufficiency low. The others lie in ``[0, 1]`` and are all better high:
    ``clipped_comp = max(0, comp)`` and ``clipped_suff = 1 - max(0, suff)`` of each bin, and
    ``norm_comp``, ``norm_suff``, these in units of what the null input loses.
    """

    comp: Rows
    suff: Rows
    comp_by_bin: list[float]
    suff_by_bin: list[float]
    clipped_comp: Rows
    clipped_suff: Rows
    norm_comp: Rows
    norm_suff: Rows
    norm_comp_by_bin: list[float]
    norm_suff_by_bin: list[float]


class ReducedLogits(NamedTuple):
    """Logits without the top tokens and with them alone, for every row and bin.

    Classes are those of :meth:`ivra.tasks.Task.contrast`: the model's own, or of answers two, the
    one predicted from the whole row and all others.
    ``null`` are those of the input without evidence, one for all bins (``special``) or one a bin
    (``zero-embeddings``). ``counted`` says which bins the normaliser counts.
    """

    without: BinLogits
    only: BinLogits
    null: BinLogits
    counted: BinMask


def delete(item: Item, keep: Keep) -> Item:
    """``item`` without the tokens that are not kept; if nothing is left, its first token stays."""
    if not any(keep):
        keep = (True, *keep[1:])
    places = [place for place, kept in enumerate(keep) if kept]

    def pick(values: list[_T]) -> list[_T]:
        return [values[place] for place in places]

    answer = item.answer
    if answer is not None:
        left = all(place in places for place in answer)
        answer = (places.index(answer[0]), places.index(answer[1])) if left else None

    return item._replace(
        input_ids=pick(item.input_ids),
        token_type_ids=pick(item.token_type_ids),
        explainable=pick(item.explainable),
        segment=pick(item.segment),
        word=pick(item.word),
        offsets=pick(item.offsets),
        rationale=None if item.rationale is None else pick(item.rationale),
        answer=answer,
    )


def cuts(
    item: Item, scores: Tensor, percent: float, settings: AopcSettings = OURS
) -> tuple[Keep, Keep]:
    """What stays of one row when its top is removed, and when it alone is kept.

    ``percent`` is the bin (a threshold where ``settings`` cut by one).
    """
    tokens = removable([item], settings)
    one = replace(settings, bins=(percent,))
    top = top_tokens(padded_scores([scores], tokens.present), tokens, one)[0, 0]
    return tuple((~top).tolist()), tuple((top | ~tokens.removable[0]).tolist())


def reduced_logits(
    backbone: Backbone,
    items: Sequence[Item],
    rankings: dict[str, list[Tensor]],
    settings: AopcSettings = OURS,
    logits: Outputs | None = None,
    budget: int = TOKEN_BUDGET,
    live_tokens: int = LIVE_TOKENS,
) -> dict[str, ReducedLogits]:
    """The model's logits on everything that an AOPC needs, in the order of ``items``.

    Equal reduced inputs (between bins, rows and explainers of a chunk) run once, also where they
    equal a whole row. Rows are worked through in chunks of like length whose reduced inputs hold
    at most about ``live_tokens`` tokens, so that memory does not grow with the set.

    Args:
        rankings: per explainer, each item's scores ``(L_i,)``.
        logits: of the whole rows, if they are known already.
        budget: tokens of a batch, padding included.
    """
    settings = settings.settled(backbone)
    assert settings.bins is not None
    logits = predict(backbone, items, budget) if logits is None else logits
    classes = _told(backbone, logits)[0].shape[1]
    shape = (len(items), len(settings.bins), classes)
    nulls = shape[1] if settings.null == "zero-embeddings" else 1
    found = {
        name: ReducedLogits(
            torch.zeros(shape),
            torch.zeros(shape),
            torch.zeros(shape[0], nulls, shape[2]),
            torch.zeros(shape[:2], dtype=torch.bool),
        )
        for name in rankings
    }
    per_row = 2 * shape[1] * max(1, len(rankings))
    for chunk in chunks([len(item.input_ids) for item in items], per_row, live_tokens):
        rows = [items[i] for i in chunk]
        tokens = removable(rows, settings)
        pool = ReducedRows(backbone, rows, tokens, settings, logits[chunk])
        wanted = []
        for name, scores in rankings.items():
            given = padded_scores([scores[i] for i in chunk], tokens.present)
            top = top_tokens(given, tokens, settings)
            wanted.append((found[name], top, pool.add(top)))
        pool.run(budget)
        for target, top, place in wanted:
            target.without[chunk] = pool.class_logits(place.without)
            target.only[chunk] = pool.class_logits(place.only)
            target.null[chunk] = pool.null_logits(place)
            target.counted[chunk] = _counted(top, settings)
    return found


def aopc(
    backbone: Backbone,
    items: Sequence[Item],
    rankings: dict[str, list[Tensor]],
    settings: AopcSettings = OURS,
    logits: Outputs | None = None,
    budget: int = TOKEN_BUDGET,
    live_tokens: int = LIVE_TOKENS,
) -> dict[str, Aopc]:
    """AOPC of several explainers on the same rows.

    For every explainer the mean over bins of ``p(y_hat | x) - p(y_hat | reduced x)``, with
    ``y_hat`` the prediction of the whole row; :class:`AopcSettings` names every choice, and the
    arguments are those of :func:`reduced_logits`.
    """
    settings = settings.settled(backbone)
    logits = predict(backbone, items, budget) if logits is None else logits
    reduced = reduced_logits(backbone, items, rankings, settings, logits, budget, live_tokens)
    told, classes = _told(backbone, logits)
    return {name: aopc_of(told, found, settings, classes) for name, found in reduced.items()}


def _told(backbone: Backbone, logits: Outputs) -> tuple[Logits, Labels]:
    """What is said of the whole rows as logits of classes, and the class that is predicted."""
    return backbone.task.contrast(logits, backbone.task.predict(logits))


def aopc_of(
    logits: Logits, reduced: ReducedLogits, settings: AopcSettings, classes: Labels | None = None
) -> Aopc:
    """The figures, from the logits of the whole rows and of the reduced ones; ``classes`` are what
    was predicted (default: of the largest logit)."""
    classes = logits.argmax(-1) if classes is None else classes
    full = probability_of(logits, classes)[:, None]
    comp = full - _probabilities(reduced.without, classes)
    suff = full - _probabilities(reduced.only, classes)
    null = (full - _probabilities(reduced.null, classes)).clamp(0, 1).expand_as(comp)
    clipped_comp, clipped_suff = comp.clamp(0, 1), 1 - suff.clamp(0, 1)
    norm_comp, norm_suff = normalised(clipped_comp, clipped_suff, null, settings.guard)

    def over_bins(values: BinRows, empty: float) -> Rows:
        counted = reduced.counted.to(values)
        size = counted.sum(1) + (settings.normaliser == "bins+1")
        mean = (values * counted).sum(1) / size.clamp_min(1)
        return torch.where(counted.any(1), mean, torch.full_like(mean, empty))

    return Aopc(
        comp=over_bins(comp, 0.0),
        suff=over_bins(suff, 1.0),
        comp_by_bin=comp.mean(0).tolist(),
        suff_by_bin=suff.mean(0).tolist(),
        clipped_comp=over_bins(clipped_comp, 0.0),
        clipped_suff=over_bins(clipped_suff, 0.0),
        norm_comp=over_bins(norm_comp, 0.0),
        norm_suff=over_bins(norm_suff, 0.0),
        norm_comp_by_bin=norm_comp.mean(0).tolist(),
        norm_suff_by_bin=norm_suff.mean(0).tolist(),
    )


def normalised(
    comp: BinRows, suff: BinRows, null: BinRows, guard: str = "zero"
) -> tuple[BinRows, BinRows]:
    """Normalised comprehensiveness and sufficiency in ``[0, 1]``, both better high.

    ``comp / nd`` and ``(suff - (1 - nd)) / nd``, clipped, from the clipped figures and the null
    difference ``nd = clip(p(y_hat | x) - p(y_hat | null))`` (Carton et al. 2020). Where ``nd`` is
    below 1e-5, ``guard="zero"`` gives 0; ``"shift"`` adds 1e-4 to ``nd`` for sufficiency and 2e-4
    for comprehensiveness, as the code of Ferreira et al. 2024 does.
    """
    if guard == "shift":
        left = null + _SHIFT
        return (
            (comp / (null + 2 * _SHIFT)).clamp(0, 1),
            ((suff - (1 - left)) / left).clamp(0, 1),
        )
    safe = null.clamp_min(_LEAST_NULL)
    zero = torch.zeros(())
    return (
        torch.where(null < _LEAST_NULL, zero, (comp / safe).clamp(0, 1)),
        torch.where(null < _LEAST_NULL, zero, ((suff - (1 - null)) / safe).clamp(0, 1)),
    )


class ImportantTokens(NamedTuple):
    """Share of removable tokens above each threshold, one a row and one a threshold."""

    share: Rows
    by_threshold: list[float]


def important_tokens(
    items: Sequence[Item],
    scores: Sequence[Tensor],
    thresholds: tuple[float, ...] = IMPORTANT,
    settings: AopcSettings = OURS,
    live_tokens: int = LIVE_TOKENS,
) -> ImportantTokens:
    """How many tokens an explanation calls important (IvRA, figure 7).

    ``mean over z of #{j : s_j > z} / #{j}``, with ``s`` the scores scaled to ``[0, 1]`` over the
    removable tokens of the row (0 if all are equal), in ``[0, 1)``: low for a focused explanation.
    ``settings`` say what is removable, and whether words count instead of tokens.
    """
    shares = torch.zeros(len(items), len(thresholds))
    settings = replace(settings, cut="min-max", bins=thresholds, ranked="removable")
    lengths = [len(item.input_ids) for item in items]
    for chunk in chunks(lengths, len(thresholds), live_tokens):
        tokens = removable([items[i] for i in chunk], replace(settings, granularity="token"))
        top = top_tokens(
            padded_scores([scores[i] for i in chunk], tokens.present), tokens, settings
        )
        count = tokens.removable.sum(1, keepdim=True).clamp_min(1)
        shares[chunk] = (top.sum(2) / count).float()
    return ImportantTokens(shares.mean(1), shares.mean(0).tolist())


def _probabilities(logits: BinLogits, classes: Labels) -> BinRows:
    wanted = classes[:, None, None].expand(-1, logits.shape[1], 1)
    return logits.softmax(-1).gather(2, wanted)[..., 0]


def _counted(top: TopTokens, settings: AopcSettings) -> BinMask:
    if settings.normaliser != "distinct":
        return torch.ones(top.shape[:2], dtype=torch.bool)
    before = torch.cat([torch.zeros_like(top[:, :1]), top[:, :-1]], dim=1)
    return (top != before).any(2)
