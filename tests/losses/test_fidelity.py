"""Fidelity against least squares by NumPy, and what its draws depend on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ivra.data import Batch
from ivra.losses import Fidelity, View, fidelity_sides, thinned_texts

Batches = Callable[..., Batch]
Views = Callable[[Batch, Tensor, Tensor], View]


def residual(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What a least-squares line in ``sizes`` leaves over, by NumPy."""
    design = np.stack([np.ones_like(sizes), sizes], axis=1)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def drawn(batch: Batch, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = batch.explainable.shape
    evidence = torch.randn(shape, generator=generator, dtype=torch.float64)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    saliency = scores.masked_fill(~batch.explainable, -torch.inf).softmax(-1)
    return evidence, saliency


@pytest.mark.parametrize("form", ["squared", "correlation"])
@pytest.mark.parametrize("target", ["probability", "log-odds"])
def test_the_loss_is_that_of_least_squares_by_hand(
    batch: Batches, evidence_view: Views, form: str, target: str
) -> None:
    rows = batch([7, 4, 9])
    evidence, saliency = drawn(rows)
    view = evidence_view(rows, evidence, saliency)
    criterion = Fidelity(form, target, texts=12, seed=3)  # type: ignore[arg-type]
    found = criterion(view)["fidelity"]
    keep = thinned_texts(rows.input_ids, rows.explainable, 12, 3 + 1_000_003)
    for row in range(3):
        mask = rows.explainable[row].numpy()
        texts = keep[:, row].numpy()[:, mask]
        always = evidence[row].numpy()[~mask & rows.attention_mask[row].numpy()].sum()
        always += evidence[row].numpy()[~rows.attention_mask[row].numpy()].sum()
        odds = texts @ evidence[row].numpy()[mask] + always
        if view.predictions[row] == 0:
            odds = -odds
        said = odds if target == "log-odds" else 1 / (1 + np.exp(-odds))
        ours = texts @ np.log(saliency[row].numpy()[mask])
        left = [residual(values, texts.sum(1)) for values in (ours, np.clip(said, -6, 6))]
        if form == "squared":
            expected = np.mean((left[0] - left[1]) ** 2)
        else:
            expected = 1 - np.corrcoef(*left)[0, 1]
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


def test_scores_that_are_the_models_own_evidence_explain_it_wholly(
    batch: Batches, evidence_view: Views
) -> None:
    rows = batch([8, 5])
    evidence, _ = drawn(rows)
    signed = evidence * (2 * evidence_view(rows, evidence, evidence).predictions[:, None] - 1)
    saliency = signed.masked_fill(~rows.explainable, -torch.inf).softmax(-1)
    view = evidence_view(rows, evidence / 4, saliency)
    assert Fidelity("correlation", "log-odds")(view)["fidelity"].abs().max() < 1e-4
    assert Fidelity().metric(view).min() > 0.95
    quarter = (signed / 4).masked_fill(~rows.explainable, -torch.inf).softmax(-1)
    exact = evidence_view(rows, evidence / 4, quarter)
    assert Fidelity("squared", "log-odds")(exact)["fidelity"].abs().max() < 1e-10


def test_texts_lose_from_one_to_all_tokens_evenly(batch: Batches) -> None:
    rows = batch([4])
    keep = thinned_texts(rows.input_ids, rows.explainable, 4000, 0)[:, 0]
    assert (keep[:, ~rows.explainable[0]] == 1).all()
    lost = 4 - keep[:, rows.explainable[0]].sum(-1)
    share = torch.bincount(lost.long(), minlength=5) / 4000
    assert share[0] == 0
    assert (share[1:] - 0.25).abs().max() < 0.03
    each = keep[:, rows.explainable[0]].mean(0)
    assert (each - 0.375).abs().max() < 0.03


def test_a_row_has_the_same_texts_in_any_batch(batch: Batches) -> None:
    together, left = batch([4, 9]), batch([4, 9], "left")
    found = [thinned_texts(b.input_ids, b.explainable, 5, 1) for b in (together, left)]
    rows = [
        keep[:, 0][:, b.explainable[0]] for keep, b in zip(found, (together, left), strict=True)
    ]
    assert torch.equal(*rows)
    other = thinned_texts(together.input_ids, together.explainable, 5, 2)
    assert not torch.equal(other, found[0])


def test_a_model_that_says_the_same_of_all_texts_leaves_nothing_to_explain(
    batch: Batches, evidence_view: Views
) -> None:
    rows = batch([6, 3])
    _, saliency = drawn(rows)
    saliency.requires_grad_()
    view = evidence_view(rows, torch.zeros_like(saliency), saliency)
    criterion = Fidelity()
    loss = criterion(view)["fidelity"]
    assert loss.tolist() == [1, 1]
    loss.sum().backward()
    assert saliency.grad is not None
    assert saliency.grad.abs().max() < 1e-9
    assert criterion.metric(view).isnan().all()


def test_a_constant_score_is_no_surrogate(batch: Batches) -> None:
    rows = batch([6])
    keep = thinned_texts(rows.input_ids, rows.explainable, 8, 0)
    uniform = rows.explainable / rows.explainable.sum(-1, keepdim=True)
    ours, model = fidelity_sides(uniform, rows.explainable, keep, torch.rand(8, 1))
    assert ours.abs().max() < 1e-5
    assert model.abs().max() > 0.1
