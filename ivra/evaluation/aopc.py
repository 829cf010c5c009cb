"""AOPC comprehensiveness and sufficiency by deleting tokens for real.

DeYoung et al. 2020 (ERASER); Xie et al. 2024 (IvRA), equations 8 and 9.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Item
from ivra.evaluation.prediction import TOKEN_BUDGET, predict
from ivra.losses import top_k
from ivra.shapes import Logits, Rows

Keep = tuple[bool, ...]
"""Which tokens of a row stay, special tokens included."""
_T = TypeVar("_T")


class Aopc(NamedTuple):
    """Differences of probabilities in ``[-1, 1]``, one a row (mean over bins) and one a bin.

    Comprehensiveness: higher is better. Sufficiency: lower is better.
    """

    comp: Rows
    suff: Rows
    comp_by_bin: list[float]
    suff_by_bin: list[float]


def delete(item: Item, keep: Keep) -> Item:
    """``item`` without the tokens that are not kept; if nothing is left, its first token stays."""
    if not any(keep):
        keep = (True, *keep[1:])
    places = [place for place, kept in enumerate(keep) if kept]

    def pick(values: list[_T]) -> list[_T]:
        return [values[place] for place in places]

    return item._replace(
        input_ids=pick(item.input_ids),
        token_type_ids=pick(item.token_type_ids),
        explainable=pick(item.explainable),
        segment=pick(item.segment),
        word=pick(item.word),
        offsets=pick(item.offsets),
        rationale=None if item.rationale is None else pick(item.rationale),
    )


def cuts(item: Item, scores: Tensor, percent: float) -> tuple[Keep, Keep]:
    """What stays when the top ``percent`` is removed, and when it alone is kept.

    Special tokens always stay. ``max(1, ceil(percent% of explainable tokens))`` tokens are the
    top; ties go to the earlier one.
    """
    explainable = torch.tensor(item.explainable)
    top = top_k(scores[None], explainable[None], percent)[0]
    without, only = ~top, top | ~explainable
    return tuple(without.tolist()), tuple(only.tolist())


def aopc(
    backbone: Backbone,
    items: Sequence[Item],
    rankings: dict[str, list[Tensor]],
    bins: Sequence[float],
    logits: Logits | None = None,
    budget: int = TOKEN_BUDGET,
) -> dict[str, Aopc]:
    """AOPC of several explainers on the same rows.

    For every explainer ``mean over bins of p(y_hat | x) - p(y_hat | reduced x)``, with
    ``y_hat`` the prediction of the whole row and 1/|bins| as the normaliser (ERASER's code).
    Tokens are deleted, positions renumbered, and equal reduced rows (between bins and between
    explainers) computed once.

    Args:
        rankings: per explainer, each item's scores ``(L_i,)``.
        bins: percentages of explainable tokens.
        logits: of the whole rows, if they are known already.
    """
    logits = predict(backbone, items, budget) if logits is None else logits
    classes = logits.argmax(-1)
    full = logits.softmax(-1).gather(1, classes[:, None])[:, 0]
    places: dict[tuple[int, Keep], int] = {}
    wanted: dict[str, list[list[tuple[int, int]]]] = {}
    for name, scores in rankings.items():
        wanted[name] = [
            [
                tuple(  # type: ignore[misc]
                    places.setdefault((row, keep), len(places))
                    for keep in cuts(item, scores[row], percent)
                )
                for percent in bins
            ]
            for row, item in enumerate(items)
        ]
    reduced = [delete(items[row], keep) for row, keep in places]
    rows = torch.tensor([row for row, _ in places])
    probabilities = predict(backbone, reduced, budget).softmax(-1)
    chosen = probabilities.gather(1, classes[rows][:, None])[:, 0]
    results = {}
    for name, places_of in wanted.items():
        drop = full[:, None, None] - chosen[torch.tensor(places_of)]
        results[name] = Aopc(
            comp=drop[..., 0].mean(1),
            suff=drop[..., 1].mean(1),
            comp_by_bin=drop[..., 0].mean(0).tolist(),
            suff_by_bin=drop[..., 1].mean(0).tolist(),
        )
    return results
