"""Aggregators of the gradients of several losses into one direction, from the library torchjd."""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from torchjd.aggregation import Aggregator


class Aggregation(NamedTuple):
    """Where an aggregator comes from: its class in torchjd, and the paper."""

    kind: str
    paper: str


AGGREGATORS: dict[str, Aggregation] = {
    "upgrad": Aggregation("UPGrad", "Quinton and Rey 2024, arXiv:2406.16232"),
    "mgda": Aggregation("MGDA", "Désidéri 2012; Sener and Koltun 2018, arXiv:1810.04650"),
    "pcgrad": Aggregation("PCGrad", "Yu et al. 2020, arXiv:2001.06782"),
    "cagrad": Aggregation("CAGrad", "Liu et al. 2021, arXiv:2110.14048, c = 0.5"),
    "dualproj": Aggregation("DualProj", "Lopez-Paz and Ranzato 2017, arXiv:1706.08840"),
    "aligned-mtl": Aggregation("AlignedMTL", "Senushkin et al. 2023, arXiv:2305.19000"),
    "imtl-g": Aggregation("IMTLG", "Liu et al. 2021, Towards Impartial Multi-task Learning"),
    "config": Aggregation("ConFIG", "Liu et al. 2024, arXiv:2408.11104"),
}
"""By the name that ``--combine`` takes."""

RADIUS = 0.5
"""CAGrad's c: how far the direction may be from the mean gradient, as a share of its length."""


@cache
def _aggregator(name: str) -> "Aggregator":
    # torchjd brings cvxpy, which takes a second to import: for those who ask for it alone.
    from torchjd import aggregation

    kind = getattr(aggregation, AGGREGATORS[name].kind)
    found: Aggregator = kind(c=RADIUS) if name == "cagrad" else kind()
    return found


def aggregated(name: str, rows: Tensor) -> Tensor:
    """One direction ``(P,)`` from gradients ``(n, P)``, in float64 in between.

    Rows of zeros are left out; one row that is left is the direction, and none gives zeros. Rows
    that are not finite give their sum, which is not finite either, for the caller to notice.
    """
    alive = rows[(rows != 0).any(1)]
    if len(alive) < 2 or not bool(alive.isfinite().all()):
        return alive.sum(0)
    direction: Tensor = _aggregator(name)(alive.double())
    return direction.to(rows)
