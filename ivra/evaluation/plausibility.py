"""Agreement of a ranking of tokens with human (or planted) rationales."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from ivra.data import Item


def plausibility_auc(items: Sequence[Item], scores: Sequence[Tensor]) -> tuple[float | None, int]:
    """Mean area under the ROC curve of the scores against the rationale, and the rows counted.

    Over explainable tokens, a row at a time, in ``[0, 1]``, 0.5 for chance, higher is better.
    Rows that nobody annotated, or in which all or no tokens are marked, have no AUC and are
    left out; ``(None, 0)`` (undefined) if none is left.
    """
    found = []
    for item, row in zip(items, scores, strict=True):
        if item.rationale is None:
            continue
        explainable = torch.tensor(item.explainable)
        marks = torch.tensor(item.rationale)[explainable]
        if bool(marks.any()) and not bool(marks.all()):
            found.append(roc_auc_score(marks.numpy(), row[explainable].double().numpy()))
    return (float(np.mean(found)), len(found)) if found else (None, 0)
