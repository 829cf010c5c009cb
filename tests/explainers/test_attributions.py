"""Gradient and perturbation attributions against their definitions, row by row."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Item, Row, collate, encode_rows
from ivra.explainers import (
    LIME,
    GradientNorm,
    IntegratedGradients,
    KernelSHAP,
    Occlusion,
)
from ivra.explainers.perturbation import _lime_texts

TEXTS = ("not good .", "the music was not bad .", "great")
Loud = Callable[[str], Backbone]
each_model = pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])


def batch_of(backbone: Backbone, side: str = "right") -> Batch:
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return collate(encode_rows(rows, backbone.tokenizer, None, 64), backbone.pad_id, side)


def shortened(item: Item, there: list[int]) -> Item:
    """The row with the explainable tokens numbered ``there`` alone, the others really deleted."""
    number = itertools.count()
    places = [i for i, yes in enumerate(item.explainable) if not yes or next(number) in there]
    names = ("input_ids", "token_type_ids", "explainable", "segment", "word", "offsets")
    return item._replace(**{name: [getattr(item, name)[i] for i in places] for name in names})


def probability(backbone: Backbone, item: Item, y_hat: int) -> float:
    with torch.no_grad():
        logits = backbone.encode(collate([item], backbone.pad_id)).logits
    return float(logits.double().softmax(-1)[0, y_hat])


def rows_of(backbone: Backbone, scores: Tensor, batch: Batch) -> list[tuple[Item, int, Tensor]]:
    """Item, prediction and the scores of the explainable tokens of each row."""
    with torch.no_grad():
        predictions = backbone.encode(batch).predictions.tolist()
    assert (scores[~batch.explainable] == 0).all()
    rows = zip(batch.items, predictions, scores, batch.explainable, strict=True)
    return [(item, y_hat, row[mask]) for item, y_hat, row, mask in rows]


@each_model
def test_occlusion_is_what_deleting_each_token_costs(name: str, loud: Loud) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    for item, y_hat, found in rows_of(backbone, Occlusion().explain(backbone, batch), batch):
        whole = probability(backbone, item, y_hat)
        tokens = range(sum(item.explainable))
        expected = [
            whole - probability(backbone, shortened(item, [t for t in tokens if t != j]), y_hat)
            for j in tokens
        ]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@each_model
def test_integrated_gradients_add_up_to_the_difference_of_logits(name: str) -> None:
    backbone = load_backbone(name, ("no", "yes", "maybe"), seed=2)
    batch = batch_of(backbone)
    reference = backbone.tokenizer.mask_token_id
    reference = backbone.pad_id if reference is None else reference
    found = IntegratedGradients(steps=100).explain(backbone, batch)
    for item, y_hat, scores in rows_of(backbone, found, batch):
        blank = [
            reference if yes else token
            for token, yes in zip(item.input_ids, item.explainable, strict=True)
        ]
        row = collate([item], backbone.pad_id)
        embeddings = backbone.embeddings.weight
        ends = []
        for ids in (item.input_ids, blank):
            inputs = {"inputs_embeds": embeddings[torch.tensor([ids])]}
            with torch.no_grad():
                logits = backbone.model(attention_mask=row.attention_mask.long(), **inputs).logits
            ends.append(float(logits[0, y_hat]))
        assert float(scores.sum()) == pytest.approx(ends[0] - ends[1], rel=2e-2, abs=1e-5)


@each_model
def test_the_gradient_norm_is_plain_autograd(name: str, loud: Loud) -> None:
    backbone = loud(name)
    batch = batch_of(backbone)
    for item, y_hat, found in rows_of(backbone, GradientNorm().explain(backbone, batch), batch):
        captured: list[Tensor] = []

        def keep(_: object, __: object, output: Tensor, into: list = captured) -> Tensor:
            into.append(output.detach().requires_grad_())
            return into[0]

        handle = backbone.embeddings.register_forward_hook(keep)
        logits = backbone.encode(collate([item], backbone.pad_id)).logits
        handle.remove()
        (slope,) = torch.autograd.grad(logits[0, y_hat], captured[0])
        expected = slope[0].norm(dim=-1)[torch.tensor(item.explainable)]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_kernel_shap_is_the_shapley_value_of_a_short_row(loud: Loud) -> None:
    """With as many draws as it takes, against the sum over all coalitions."""
    backbone = loud("tiny-bert")
    batch = batch_of(backbone)
    found = KernelSHAP(samples=4000).explain(backbone, batch)
    for item, y_hat, scores in rows_of(backbone, found, batch):
        tokens = range(sum(item.explainable))
        if len(tokens) > 3:
            continue
        worth = {
            coalition: probability(backbone, shortened(item, list(coalition)), y_hat)
            for size in range(len(tokens) + 1)
            for coalition in itertools.combinations(tokens, size)
        }
        for token in tokens:
            expected = 0.0
            for coalition, value in worth.items():
                if token in coalition:
                    continue
                joined = worth[tuple(sorted((*coalition, token)))]
                orders = math.factorial(len(coalition)) * math.factorial(
                    len(tokens) - len(coalition) - 1
                )
                expected += orders / math.factorial(len(tokens)) * (joined - value)
            assert float(scores[token]) == pytest.approx(expected, abs=2e-2)
        gain = worth[tuple(tokens)] - worth[()]
        assert float(scores.sum()) == pytest.approx(gain, abs=2e-2)


def test_lime_is_a_weighted_ridge_regression_on_the_tokens_there(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    batch = batch_of(backbone)
    lime = LIME(samples=60)
    item, y_hat, found = rows_of(backbone, lime.explain(backbone, batch), batch)[1]
    texts = drawn_texts(lime, item)
    values = [
        probability(backbone, shortened(item, torch.nonzero(t)[:, 0].tolist()), y_hat)
        for t in texts
    ]
    share = texts.mean(-1).sqrt().numpy()  # cosine with the row of ones
    weights = np.exp(-((1 - share) ** 2) / (2 * 0.25**2))
    expected = Ridge(alpha=1.0).fit(texts.numpy(), values, sample_weight=weights).coef_
    np.testing.assert_allclose(found, expected, atol=1e-3)


def drawn_texts(lime: LIME, item: Item) -> Tensor:
    from ivra.explainers.perturbation import _seed

    generator = torch.Generator().manual_seed(_seed(lime.seed, item.row.id))
    return _lime_texts(sum(item.explainable), lime.samples, generator)


def test_limes_texts_lose_every_number_of_tokens_as_often() -> None:
    texts = _lime_texts(6, 6001, torch.Generator().manual_seed(0))
    assert (texts[0] == 1).all()
    gone = (texts[1:] == 0).sum(-1)
    counts = gone.bincount(minlength=7)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 150
    torch.testing.assert_close(texts[1:].mean(0), torch.full((6,), 2.5 / 6), atol=0.03, rtol=0)


@pytest.mark.parametrize("kind", [LIME, KernelSHAP])
def test_what_is_drawn_depends_on_the_seed_and_leaves_the_global_state_alone(
    kind: type[LIME] | type[KernelSHAP], loud: Loud
) -> None:
    backbone = loud("tiny-bert")
    batch = batch_of(backbone)
    before = torch.random.get_rng_state()
    first, again, other = (kind(30, seed).explain(backbone, batch) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
