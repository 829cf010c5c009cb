"""What comprehensiveness and sufficiency share: the draw of k, and AOPC by reruns."""

import random

import torch

from ivra.losses.criterion import View
from ivra.losses.topk import top_k
from ivra.shapes import Logits, Rows


class BinDrawer:
    """Draws one of ``bins`` at each call, in an order that ``seed`` fixes."""

    def __init__(self, bins: tuple[float, ...], seed: int) -> None:
        self._bins = bins
        self._random = random.Random(seed)

    def __call__(self) -> float:
        return self._random.choice(self._bins)


def probability_of(logits: Logits, classes: torch.Tensor) -> Rows:
    """``softmax(logits)`` at ``classes``."""
    return logits.softmax(-1).gather(1, classes[:, None])[:, 0]


def aopc(view: View, bins: tuple[float, ...], keep_top: bool) -> Rows:
    """Mean over ``bins`` of ``p(y_hat | x) - p(y_hat | reduced x)`` for every row.

    ``keep_top`` keeps only the top tokens (sufficiency), else they are removed
    (comprehensiveness). Ranks by the saliency; ties go to the earlier token.
    """
    full = probability_of(view.logits, view.predictions)
    drops = []
    for percent in bins:
        top = top_k(view.saliency, view.explainable, percent)
        keep = (top if keep_top else ~top).to(full)
        drops.append(full - probability_of(view.rerun(keep), view.predictions))
    return torch.stack(drops).mean(0)
