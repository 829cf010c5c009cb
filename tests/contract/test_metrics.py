"""Every metric of ``ivra eval`` as one value a row, held to one contract.

A metric that is new in ``ivra.evaluation.METRICS`` fails here until it has its values below.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ivra.backbones import Backbone
from ivra.contract.models import Tiny, tiny
from ivra.contract.rows import PAD, make_batch, make_items
from ivra.data import Item
from ivra.evaluation import (
    METRICS,
    AopcSettings,
    aopc,
    average_precision,
    normalised_entropy,
    predict,
    recall_at,
    roc_auc,
    saliency_entropy,
    support_size,
    token_units,
    word_units,
)
from ivra.losses import batch_consistency, hidden_distances, saliency_divergences

torch.set_num_threads(1)


class Shown(NamedTuple):
    """Rows, a saliency ``(L,)`` for each, and how a batch of them is padded."""

    items: list[Item]
    saliency: list[Tensor]
    pad: int = PAD
    side: str = "right"
    extra: int = 0

    def rows(self, order: Sequence[int]) -> "Shown":
        """Some of the rows, in the order given."""
        chosen = ([self.items[i] for i in order], [self.saliency[i] for i in order])
        return self._replace(items=chosen[0], saliency=chosen[1])

    def padded(self) -> tuple[Tensor, Tensor]:
        """The saliencies and the explainable tokens as ``(B, L)``."""
        batch = make_batch(self.items, pad=self.pad, side=self.side, extra=self.extra)
        values = torch.zeros(batch.explainable.shape, dtype=self.saliency[0].dtype)
        values[batch.attention_mask] = torch.cat(self.saliency)
        return values, batch.explainable


def drawn(lengths: Sequence[int], seed: int, kind: str = "soft") -> Shown:
    """Rows with saliencies that are drawn, or equal on all explainable tokens."""
    items = make_items(lengths, seed)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for item in items:
        yes = torch.tensor(item.explainable)
        values = torch.rand(len(yes), generator=generator).double() + 0.01
        values = torch.where(yes, torch.ones_like(values) if kind == "equal" else values, 0.0)
        found.append(values / values.sum())
    return Shown(items, found)


def of_units(figure: Callable[..., float], *arguments: int) -> Callable[[Shown], list[float]]:
    """A figure of plausibility on tokens and on words; nan where it is undefined."""

    def values(shown: Shown) -> list[float]:
        found = []
        for units in (token_units, word_units):
            for item, saliency in zip(shown.items, shown.saliency, strict=True):
                row = units(item, saliency)
                both = row is not None and row.marks.any() and not row.marks.all()
                found.append(figure(row, *arguments) if both else float("nan"))
        return found

    return values


def of_saliency(figure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Shown], list[float]]:
    return lambda shown: figure(*shown.padded()).tolist()


def backbone_for(shown: Shown) -> Backbone:
    backbone = tiny("tiny-gpt2" if shown.pad != PAD else "tiny-electra")
    backbone.tokenizer.padding_side = shown.side
    return backbone


def of_aopc(name: str) -> Callable[[Shown], list[float]]:
    def values(shown: Shown) -> list[float]:
        choices = AopcSettings(bins=(10.0, 50.0))
        found = aopc(backbone_for(shown), shown.items, {"any": shown.saliency}, choices, budget=40)[
            "any"
        ]
        return getattr(found, name).tolist()

    return values


def accuracy(shown: Shown) -> list[float]:
    predictions = predict(backbone_for(shown), shown.items).argmax(-1)
    gold = torch.tensor([item.label for item in shown.items])
    return (predictions == gold).double().tolist()


def simulation(shown: Shown) -> list[float]:
    """Where a second model says what the first says."""
    student, teacher = tiny("tiny-bert"), backbone_for(shown)
    same = predict(student, shown.items).argmax(-1) == predict(teacher, shown.items).argmax(-1)
    return same.double().tolist()


def consistency(shown: Shown) -> list[float]:
    """Spearman's rho of the batch, the same for every row; nan where it is undefined."""
    batch = make_batch(shown.items, pad=shown.pad, side=shown.side, extra=shown.extra)
    model = Tiny(tiny("tiny-electra"))
    encoding = model.backbone.encode(batch, hidden=True)
    assert encoding.hidden is not None
    saliency, explainable = shown.padded()
    rho = batch_consistency(
        saliency_divergences(saliency, explainable, batch.attention_mask),
        hidden_distances(encoding.hidden.detach(), batch.attention_mask),
    )
    return [float("nan") if rho is None else rho] * len(shown.items)


VALUES: dict[str, dict[str, Callable[[Shown], list[float]]]] = {
    "accuracy": {"accuracy": accuracy},
    "aopc": {
        name: of_aopc(name)
        for name in ("comp", "suff", "clipped_comp", "clipped_suff", "norm_comp", "norm_suff")
    },
    "sim": {"agreement": simulation},
    "cons": {"rho": consistency},
    "plausibility": {
        "auc": of_units(roc_auc),
        "average precision": of_units(average_precision),
        "recall@2": of_units(recall_at, 2),
    },
    "entropy": {
        "entropy": of_saliency(saliency_entropy),
        "normalised": of_saliency(normalised_entropy),
        "support": of_saliency(support_size),
    },
}
EACH = [(metric, name) for metric, found in VALUES.items() for name in found]
LENGTHS = (7, 1, 4, 9, 2, 6)

each_metric = pytest.mark.parametrize(("metric", "name"), EACH, ids=lambda part: part)


def test_every_metric_of_the_command_line_is_held_to_the_contract() -> None:
    assert set(VALUES) == set(METRICS)


def blocks(metric: str, values: list[float], rows: int) -> np.ndarray:
    """Values as ``(kinds, rows)``: plausibility gives tokens and then words."""
    assert len(values) == rows * (2 if metric == "plausibility" else 1)
    return np.array(values).reshape(-1, rows)


@each_metric
def test_a_value_a_row_and_finite_where_it_is_defined(metric: str, name: str) -> None:
    shown = drawn(LENGTHS, 0)
    found = blocks(metric, VALUES[metric][name](shown), len(LENGTHS))
    defined = ~np.isnan(found)
    assert np.isfinite(found[defined]).all()
    assert defined.any(), "an ordinary batch has a value"


@each_metric
def test_a_batch_is_its_rows_one_by_one(metric: str, name: str) -> None:
    if metric == "cons":
        pytest.skip("of pairs of rows")
    shown, figure = drawn(LENGTHS, 1), VALUES[metric][name]
    whole = blocks(metric, figure(shown), len(LENGTHS))
    alone = [blocks(metric, figure(shown.rows([i])), 1) for i in range(len(LENGTHS))]
    np.testing.assert_allclose(whole, np.concatenate(alone, 1), atol=1e-5)


@each_metric
def test_the_order_of_rows_is_that_of_the_values(metric: str, name: str) -> None:
    shown, figure, order = drawn(LENGTHS, 2), VALUES[metric][name], [3, 0, 5, 1, 4, 2]
    moved = blocks(metric, figure(shown.rows(order)), len(LENGTHS))
    whole = blocks(metric, figure(shown), len(LENGTHS))
    np.testing.assert_allclose(moved, whole[:, order], atol=1e-5)


@each_metric
@given(
    lengths=st.lists(st.integers(1, 9), min_size=3, max_size=5),
    seed=st.integers(0, 1000),
    extra=st.integers(0, 5),
)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_padding_changes_nothing(
    metric: str, name: str, lengths: list[int], seed: int, extra: int
) -> None:
    shown, figure = drawn(lengths, seed), VALUES[metric][name]
    expected = figure(shown)
    for side in ("left", "right"):
        found = figure(shown._replace(side=side, extra=extra))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@each_metric
def test_padding_that_is_also_a_word_changes_nothing(metric: str, name: str) -> None:
    """A decoder whose padding is the end of text, and rows that hold that id as a word."""
    shown, figure = drawn(LENGTHS, 3), VALUES[metric][name]
    word = shown.items[0].input_ids[2]
    found = [figure(shown._replace(pad=word, side=side, extra=2)) for side in ("left", "right")]
    np.testing.assert_allclose(*found, atol=1e-5)


@each_metric
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 1, 1)], ids=["rows", "single tokens"])
def test_equal_saliency_has_values_too(metric: str, name: str, lengths: tuple[int, ...]) -> None:
    found = np.array(VALUES[metric][name](drawn(lengths, 4, "equal")))
    assert np.isfinite(found[~np.isnan(found)]).all()


@each_metric
def test_half_precision_is_close_to_double(metric: str, name: str) -> None:
    """Saliencies are ranked, or summed; float16 rounds them by less than a thousandth."""
    shown, figure = drawn(LENGTHS, 5), VALUES[metric][name]
    half = shown._replace(saliency=[row.half() for row in shown.saliency])
    rounded = half._replace(saliency=[row.double() for row in half.saliency])
    np.testing.assert_allclose(figure(half), figure(rounded), atol=2e-2)
