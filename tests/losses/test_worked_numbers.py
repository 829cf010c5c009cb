"""The worked numbers of docs/criteria.md: by plain arithmetic here, and by the package."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ivra.data import Batch
from ivra.losses import (
    Consistency,
    View,
    batch_consistency,
    comprehensiveness_loss,
    hidden_distances,
    plausibility_loss,
    probability_of,
    row_auc,
    saliency_divergences,
    sufficiency_loss,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "criteria.md"
TOLD = {
    (name, form): value
    for name, form, value in re.findall(
        r"^\| `(\w+)` ([\w, -]+) \|.*\| (-?\d\.\d{4}) \|$", PAGE.read_text(), re.MULTILINE
    )
}
"""Criterion and form, and the number that the page gives."""

log = math.log
FULL, WITHOUT, ONLY = (0.1, 0.9), (0.6, 0.4), (0.2, 0.8)
SALIENCY = [[0.5, 0.5, 0.0], [0.5, 0.25, 0.25], [0.0, 0.5, 0.5]]
HIDDEN = [[0.0, 0.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 12.0]]
MARKED, ROW = (True, True, False, False), (0.5, 0.25, 0.25, 0.0)


def kl(p: list[float], q: list[float], mix: float = 1e-4) -> float:
    def even(row: list[float]) -> list[float]:
        return [(1 - mix) * x + mix / len(row) for x in row]

    return sum(a * log(a / b) for a, b in zip(even(p), even(q), strict=True))


def js(p: list[float], q: list[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    halves = [sum(a * log(a / m) for a, m in zip(x, middle, strict=True) if a) for x in (p, q)]
    return sum(halves) / 2


def square(p: list[float], q: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(p, q, strict=True))


def entmax15(p: list[float], q: list[float]) -> float:
    pairs = zip(p, q, strict=True)
    return sum(4 / 3 * a**1.5 + 2 / 3 * b**1.5 - 2 * a * math.sqrt(b) for a, b in pairs)


def first_ratio(divergence: Callable[..., float], near: float = 5, far: float = 12) -> float:
    one, two, three = SALIENCY
    return (divergence(one, two) / near + divergence(one, three) / far) / 2


def scale_free() -> float:
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    distance = {(0, 1): 5, (0, 2): 12, (1, 2): 13}
    mean = sum(kl(SALIENCY[i], SALIENCY[j]) for i, j in pairs) / 6
    return first_ratio(kl) / (mean * sum(1 / d for d in distance.values()) / 3)


MIXED = [(1 - 1e-4) * 4 * r + 1e-4 for r in ROW]
"""``N r`` of the plausibility example."""
ARITHMETIC = {
    ("comp", "margin"): 1 - (log(0.9) - log(0.4)),
    ("comp", "difference"): -(log(0.9) - log(0.4)),
    ("comp", "probability"): 0.4 - 0.9,
    ("comp", "absolute"): -abs(log(0.9) - log(0.4)),
    ("comp", "kl"): -(0.6 * log(0.6 / 0.1) + 0.4 * log(0.4 / 0.9)),
    ("comp", "metric"): 0.9 - 0.4,
    ("suff", "margin"): 0.1 + (log(0.9) - log(0.8)),
    ("suff", "difference"): log(0.9) - log(0.8),
    ("suff", "probability"): 0.9 - 0.8,
    ("suff", "absolute"): abs(log(0.9) - log(0.8)),
    ("suff", "kl"): 0.2 * log(0.2 / 0.1) + 0.8 * log(0.8 / 0.9),
    ("suff", "metric"): 0.9 - 0.8,
    ("cons", "ratio, kl"): first_ratio(kl),
    ("cons", "ratio, kl, l1"): first_ratio(kl, 7, 12),
    ("cons", "ratio, js"): first_ratio(js),
    ("cons", "ratio, fenchel-young of sparsemax"): first_ratio(lambda p, q: square(p, q) / 2),
    ("cons", "ratio, fenchel-young of entmax15"): first_ratio(entmax15),
    ("cons", "scale-free"): scale_free(),
    ("cons", "clustering"): square(*SALIENCY[:2]) - square(SALIENCY[0], SALIENCY[2]),
    ("cons", "metric"): 0.5,
    ("plaus", "kl"): kl([0.5, 0.5, 0, 0], list(ROW)),
    ("plaus", "mae"): (0 + 0.25 + 0.25 + 0) / 4,
    ("plaus", "bce"): (sum(log(1 + o) for o in MIXED) - log(MIXED[0]) - log(MIXED[1])) / 4,
    ("plaus", "metric"): 3.5 / 4,
}


def view(batch: Callable[..., Batch]) -> View:
    """The three rows of the consistency example; two classes, the third row alone in its own."""
    rows = batch([3, 3, 3])

    def inner(values: list[list[float]]) -> Tensor:
        return torch.nn.functional.pad(torch.tensor(values, dtype=torch.float64), (1, 1))

    def none(_: object) -> Tensor:
        raise AssertionError("nothing is rerun")

    logits = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return View(rows, logits, inner(SALIENCY), inner(HIDDEN)[..., None], none, none)


def by_the_package(batch: Callable[..., Batch], name: str, form: str) -> float:
    full, without, only = (torch.tensor([x]).double().log() for x in (FULL, WITHOUT, ONLY))
    if form == "metric" and name in ("comp", "suff"):
        label, other = torch.tensor([1]), without if name == "comp" else only
        return (probability_of(full, label) - probability_of(other, label)).item()
    if name == "comp":
        return comprehensiveness_loss(full, without, form).item()
    if name == "suff":
        return sufficiency_loss(full, only, form).item()
    if name == "cons":
        seen = view(batch)
        visible = seen.batch.attention_mask
        if form == "metric":
            assert seen.hidden is not None
            found = batch_consistency(
                saliency_divergences(seen.saliency, seen.explainable, visible),
                hidden_distances(seen.hidden, visible),
            )
            assert found is not None
            return found
        kind, *rest = form.split(", ")
        divergence, _, normaliser = rest[0].partition(" of ") if rest else ("kl", "", "")
        distance = "l1" if "l1" in rest else "l2"
        criterion = Consistency(kind, divergence, distance, normaliser=normaliser or "softmax")
        return criterion(replace(seen))["cons"][0].item()
    saliency, marks = torch.tensor([ROW], dtype=torch.float64), torch.tensor([MARKED])
    everything = torch.ones_like(marks)
    if form == "metric":
        return row_auc(saliency, marks, everything).item()
    return plausibility_loss(saliency, marks, everything, form).item()


@pytest.mark.parametrize(("name", "form"), ARITHMETIC)
def test_the_page_the_package_and_plain_arithmetic_agree(
    batch: Callable[..., Batch], name: str, form: str
) -> None:
    assert f"{ARITHMETIC[name, form]:.4f}" == TOLD[name, form]
    assert by_the_package(batch, name, form) == pytest.approx(ARITHMETIC[name, form], abs=1e-6)


def test_the_page_has_no_other_worked_numbers() -> None:
    assert set(TOLD) == set(ARITHMETIC)
