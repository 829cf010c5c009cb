"""Plausibility: an explanation should mark what a human marked.

As a criterion: Ferreira et al. 2024 (mean absolute error), Joshi et al. 2022 (ER-Test: KL), Chan
et al. 2022 (UNIREX: binary cross-entropy). As a metric: Xie et al. 2024 (IvRA), table 6.
"""

from typing import Literal, get_args

import torch

from ivra.errors import unknown_name
from ivra.losses.criterion import Criterion, Terms, View
from ivra.losses.divergence import kl_divergence, mixed
from ivra.shapes import Rows, Saliency, TokenMask, TokenScores

PlausibilityForm = Literal["kl", "mae", "bce"]


def plausibility_loss(
    saliency: Saliency,
    rationale: TokenMask,
    explainable: TokenMask,
    form: PlausibilityForm = "kl",
) -> Rows:
    """How far the saliency of each row is from its rationale, at least 0.

    ``N`` are the row's explainable tokens, ``m_j`` is 1 on those of the rationale, else 0, and
    ``h = m / sum m`` is the rationale as a distribution:

    * ``"kl"``: ``KL(h || r)`` in nats, both mixed with 1e-4 of uniform, 0 iff ``r = h``.
    * ``"mae"``: ``1/N sum_j |h_j - r_j|``, in ``[0, 2/N]``, 0 iff ``r = h``: the shorter the row
      the larger, as in Ferreira et al.
    * ``"bce"``: ``1/N sum_j CE(m_j, p_j)`` in nats with ``p_j = N r_j / (1 + N r_j)``, the logistic
      function of ``log r_j - log 1/N``: a token counts as marked with probability 1/2 at uniform
      saliency. ``r`` is mixed with 1e-4 of uniform.

    A row whose rationale has no explainable token gives 0 and no gradient, and keeps the graph.
    Half precision is computed in float32.

    Raises:
        IvraError: unknown ``form``.
    """
    saliency = saliency.to(torch.promote_types(saliency.dtype, torch.float32))
    marked = rationale & explainable
    human = marked.to(saliency) / marked.sum(-1, keepdim=True).clamp_min(1)
    count = explainable.sum(-1)
    if form == "kl":
        loss = kl_divergence(human, saliency, explainable)
    elif form == "mae":
        loss = (human - saliency).abs().sum(-1) / count
    elif form == "bce":
        odds = torch.where(explainable, mixed(saliency, explainable) * count[:, None], 1.0)
        surprise = odds.log1p() - torch.where(marked, odds.log(), 0.0)
        loss = torch.where(explainable, surprise, 0.0).sum(-1) / count
    else:
        raise unknown_name("form", form, list(get_args(PlausibilityForm)))
    return torch.where(marked.any(-1), loss, 0.0)


def row_auc(scores: TokenScores, marked: TokenMask, explainable: TokenMask) -> Rows:
    """Area under the ROC curve of each row's scores against its marks, over explainable tokens.

    The share of pairs (marked, unmarked) that the scores put in order, a tie counting half: in
    ``[0, 1]``, 0.5 for chance, higher is better. NaN where all or no explainable tokens are
    marked. Ranks are exact in float64.
    """
    marked = marked & explainable
    hidden = explainable.logical_not().sum(-1, keepdim=True)
    blank = scores.detach().masked_fill(~explainable, -torch.inf).contiguous()
    ordered = blank.sort(dim=-1).values
    below = torch.searchsorted(ordered, blank)
    upto = torch.searchsorted(ordered, blank, right=True)
    ranks = (below + upto + 1).double() / 2 - hidden
    positive = marked.sum(-1).double()
    negative = explainable.sum(-1) - positive
    wins = torch.where(marked, ranks, 0.0).sum(-1) - positive * (positive + 1) / 2
    pairs = positive * negative
    return torch.where(pairs > 0, wins / pairs, torch.nan).to(scores)


class Plausibility(Criterion):
    """Pulls the saliency towards human rationales, in rows that have one.

    Rows without a rationale, and annotated rows in which nothing explainable is marked, add
    nothing. The metric is the AUC of the saliency against the rationale, undefined (NaN) for such
    rows and for those marked throughout.

    Args:
        form: of the loss, see :func:`plausibility_loss`.
    """

    name = "plaus"
    better = "higher"
    needs_rationale = True

    def __init__(self, form: PlausibilityForm = "kl") -> None:
        super().__init__()
        self.form = form

    def forward(self, view: View) -> Terms:
        loss = plausibility_loss(view.saliency, self._marks(view), view.explainable, self.form)
        return Terms(plaus=loss)

    def metric(self, view: View) -> Rows:
        return row_auc(view.saliency, self._marks(view), view.explainable)

    @staticmethod
    def _marks(view: View) -> TokenMask:
        return view.rationale & view.annotated[:, None]
