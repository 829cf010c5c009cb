"""The worked numbers of docs/evaluation.md, computed anew and read off the page."""

from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score

from ivra.evaluation import (
    Bootstrap,
    Units,
    accuracy_figures,
    average_relative_gain,
    normalised_entropy,
    paired_test,
    saliency_entropy,
    support_size,
)
from ivra.evaluation.agreement import TOKEN_KEYS, plausibility_figures
from ivra.losses.spearman import spearman

PAGE = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"
TEXT = " ".join(PAGE.read_text(encoding="utf-8").split())


def says(text: str) -> bool:
    """Whether a worked example of the page ends with ``text``, whatever its line breaks."""
    return f"{text}." in TEXT or f"{text} (" in TEXT


def test_intervals() -> None:
    low, high = Bootstrap(2000, 0).of_means({"x": [0.0, 1.0, 5.0]})["x"]
    assert says(
        "the rows 0, 1 and 5 in 2000 draws of seed 0 have mean 2.000 and interval "
        f"{low:.3f} to {high:.3f}"
    )


def test_accuracy() -> None:
    gold, predicted = [0, 0, 0, 1], [0, 0, 1, 1]
    found = accuracy_figures(gold, predicted, 2, Bootstrap(0, 0))
    assert found["accuracy"] == accuracy_score(gold, predicted)
    assert found["macro_f1"] == f1_score(gold, predicted, average="macro")
    assert says(f"accuracy {found['accuracy']:.3f}, macro F1 {found['macro_f1']:.3f}")


def test_significance() -> None:
    first = np.array([[True] * 9 + [False] * 2 + [True] * 5])
    second = np.array([[False] * 9 + [True] * 2 + [True] * 5])
    p_value = paired_test(first, second).p_value
    assert says(f"right alone on 9 rows against 2: p = {p_value:.3f}")


def test_consistency() -> None:
    rho = spearman(torch.tensor([1.0, 2.0, 2.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0]))
    assert says(f"divergences 1 2 2 4 against distances 1 3 2 4 have rho {rho:.3f}")


def test_plausibility() -> None:
    marks = np.array([False, False, True, True, False, True])
    row = Units(np.array([5.0, 1.0, 4.0, 3.0, 2.0, 2.0]), marks, np.zeros(6, dtype=np.int64))
    found = plausibility_figures([row], TOKEN_KEYS, (5,), Bootstrap(0, 0))[0]
    assert says(
        f"AUC {found['plausibility']:.3f}, average precision {found['average_precision']:.3f}, "
        f"recall at marked {found['recall_at_marked']:.3f}, recall at 5 "
        f"{found['recall_at_5']:.3f}; with the top half, token F1 {found['token_f1']:.3f} and "
        f"IoU F1 {found['iou_f1']:.3f}"
    )


def test_entropy() -> None:
    saliency, everywhere = torch.tensor([[0.5, 0.25, 0.25, 0.0]]), torch.ones(1, 4).bool()
    entropy = saliency_entropy(saliency, everywhere)
    share = normalised_entropy(saliency, everywhere).item()
    support = support_size(saliency, everywhere).item()
    assert says(
        f"entropy {entropy.item():.3f}, normalised {share:.3f}, effective tokens "
        f"{entropy.exp().item():.3f}, support {support:.0f}"
    )


def test_gain() -> None:
    found = average_relative_gain(
        {"a": 70.0, "b": 30.0}, {"a": 50.0, "b": 40.0}, {"a": "higher", "b": "higher"}
    )
    gains = found.gains
    assert says(f"gains {gains['a']:.3f} and {gains['b']:.3f}, ARG {found.value:.3f}")
