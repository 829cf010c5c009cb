"""Attributions between a row and a baseline: captum on transformers' own model, sums, rules."""

from collections.abc import Callable

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Tensor, nn
from transformers.activations import GELUActivation

from ivra.backbones import Backbone
from ivra.data import Batch, Item, Row, collate, encode_rows
from ivra.errors import IvraError
from ivra.explainers import (
    LIME,
    DeepLIFT,
    Explainer,
    IntegratedGradients,
    KernelSHAP,
    LayerConductance,
    Occlusion,
    baseline_embeddings,
    static_explainer,
)

TEXTS = ("not good .", "the music was not bad .", "great")
BASELINES = ("zero", "mask", "pad")
Loud = Callable[[str], Backbone]
each_model = pytest.mark.parametrize("name", ["tiny-bert", "tiny-electra", "tiny-gpt2"])
each_baseline = pytest.mark.parametrize("baseline", BASELINES)


def batch_of(backbone: Backbone, side: str = "right") -> Batch:
    rows = [Row(f"row-{i}", (text,)) for i, text in enumerate(TEXTS)]
    return collate(encode_rows(rows, backbone.tokenizer, None, 64), backbone.pad_id, side)


def looked_up(backbone: Backbone, item: Item, baseline: str | None = None) -> Tensor:
    """The embeddings of one row, ``(1, L, E)``, or those of its baseline."""
    table = backbone.embeddings.weight.detach()
    filler = {"mask": backbone.tokenizer.mask_token_id, "pad": backbone.pad_id}
    vectors = []
    for token, yes in zip(item.input_ids, item.explainable, strict=True):
        if baseline == "zero" and yes:
            vectors.append(torch.zeros(table.shape[1]))
        else:
            vectors.append(table[filler[baseline] if baseline is not None and yes else token])
    return torch.stack(vectors)[None]


def plain_logits(backbone: Backbone, embeddings: Tensor) -> Tensor:
    """Transformers' own logits, of whole rows of embeddings in one segment."""
    logits = backbone.model(inputs_embeds=embeddings).logits
    return logits if embeddings.requires_grad else logits.detach()


def per_item(scores: Tensor, batch: Batch) -> list[tuple[Item, Tensor]]:
    """Each row's item and its scores without padding."""
    assert (scores[~batch.explainable] == 0).all()
    rows = zip(batch.items, scores, batch.attention_mask, strict=True)
    return [(item, row[visible]) for item, row, visible in rows]


@each_baseline
@each_model
def test_the_baseline_is_the_row_with_its_explainable_tokens_replaced(
    name: str, baseline: str, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    found = baseline_embeddings(backbone, batch, baseline)
    for item, row, visible in zip(batch.items, found, batch.attention_mask, strict=True):
        assert torch.equal(row[visible], looked_up(backbone, item, baseline)[0])


def test_without_a_mask_token_the_mask_is_padding(loud: Loud) -> None:
    backbone = loud("tiny-gpt2")
    batch = batch_of(backbone)
    before, pad = (baseline_embeddings(backbone, batch, b) for b in ("mask", "pad"))
    assert not torch.equal(before, pad)
    backbone.tokenizer.mask_token = None
    assert torch.equal(baseline_embeddings(backbone, batch, "mask"), pad)


@each_baseline
@each_model
def test_integrated_gradients_are_captums_own_on_the_plain_model(
    name: str, baseline: str, loud: Loud
) -> None:
    """Captum attributes to the embedding layer of the model that transformers built."""
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    found = IntegratedGradients(12, baseline).explain(backbone, batch)
    model = backbone.model
    for item, scores in per_item(found, batch):
        ids = torch.tensor([item.input_ids])
        explainable = torch.tensor(item.explainable)
        blank = looked_up(backbone, item, baseline)
        target = int(plain_logits(backbone, looked_up(backbone, item)).argmax())
        own = looked_up(backbone, item)
        if baseline == "zero":  # no id has it: the definition, step by step
            total = torch.zeros_like(own)
            points, weights = legendre(12)
            for point, weight in zip(points, weights, strict=True):
                at = (blank + point * (own - blank)).requires_grad_()
                total += weight * torch.autograd.grad(plain_logits(backbone, at)[0, target], at)[0]
            expected = ((own - blank) * total).sum(-1)[0]
        else:
            filler = backbone.tokenizer.mask_token_id if baseline == "mask" else backbone.pad_id
            method = LayerIntegratedGradients(lambda x: model(x).logits, backbone.embeddings)
            given = ids.masked_fill(explainable, filler)
            if backbone.family.causal and baseline == "pad":
                continue  # transformers would look for the last token among the baseline's
            expected = method.attribute(ids, given, target=target, n_steps=12).sum(-1)[0].detach()
        expected = expected * explainable
        torch.testing.assert_close(
            scores, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


def legendre(steps: int) -> tuple[list[float], list[float]]:
    """Points and weights of Gauss-Legendre on [0, 1]."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(steps)
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()


@each_baseline
@pytest.mark.parametrize("layer", [0, 1, -2])
@each_model
def test_conductance_is_the_sum_over_steps_of_slope_times_change(
    name: str, layer: int, baseline: str, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    steps = 9
    found = LayerConductance(layer, steps, baseline).explain(backbone, batch)
    for item, scores in per_item(found, batch):
        own, blank = looked_up(backbone, item), looked_up(backbone, item, baseline)
        target = int(plain_logits(backbone, own).argmax())
        states, slopes = [], []
        for step in range(steps + 1):
            state, logit = block_output(backbone, layer, blank + step / steps * (own - blank))
            states.append(state.detach())
            slopes.append(torch.autograd.grad(logit[0, target], state)[0])
        expected = torch.zeros(len(item.input_ids))
        for step in range(steps):
            expected += (slopes[step] * (states[step + 1] - states[step])).sum(-1)[0]
        expected = expected * torch.tensor(item.explainable)
        assert expected.abs().max() > 0
        torch.testing.assert_close(
            scores, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max())
        )


def block_output(backbone: Backbone, layer: int, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """What a block puts out, and the logits."""
    kept: list[Tensor] = []
    blocks = {
        "bert": lambda model: model.bert.encoder.layer,
        "electra": lambda model: model.electra.encoder.layer,
        "gpt2": lambda model: model.transformer.h,
    }[backbone.model.config.model_type](backbone.model)
    handle = blocks[layer].register_forward_hook(lambda _, __, output: kept.append(output))
    logits = plain_logits(backbone, embeddings.requires_grad_())
    handle.remove()
    return kept[0], logits


@each_model
def test_conductance_of_all_tokens_adds_up_to_the_difference_of_logits(
    name: str, loud: Loud
) -> None:
    """Special tokens included: all of the row's are made explainable here."""
    backbone = loud(name)
    item = batch_of(backbone).items[1]
    whole = item._replace(explainable=[True] * len(item.input_ids))
    batch = collate([whole], backbone.pad_id)
    own, blank = looked_up(backbone, whole), looked_up(backbone, whole, "zero")
    with torch.no_grad():
        logits = plain_logits(backbone, own)
        gap = (logits - plain_logits(backbone, blank))[0, int(logits.argmax())]
    assert abs(float(gap)) > 0.1
    for layer in (0, 1, 2):
        found = LayerConductance(layer, 400, "zero").explain(backbone, batch)
        assert float(found.sum()) == pytest.approx(float(gap), rel=5e-3)


@each_model
def test_the_last_block_conducts_through_the_token_that_the_head_reads_alone(
    name: str, loud: Loud
) -> None:
    backbone = loud(name)
    item = batch_of(backbone).items[1]
    whole = item._replace(explainable=[True] * len(item.input_ids))
    batch = collate([whole], backbone.pad_id)
    found = LayerConductance(layer=-1, steps=3).explain(backbone, batch)[0]
    read = len(whole.input_ids) - 1 if backbone.family.causal else 0
    assert found.nonzero()[:, 0].tolist() == [read]


def test_a_layer_that_the_model_does_not_have(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    explainer = static_explainer("layer-conductance:layer=3")
    for call in (explainer.check, lambda model: explainer.explain(model, batch_of(model))):
        with pytest.raises(IvraError) as caught:
            call(backbone)
        message = "layer-conductance:layer is 3: expected -3 to 2, the model has 3 layers"
        assert str(caught.value) == message


class Secant(torch.autograd.Function):
    """An activation whose slope is that of the line between two points (the Rescale rule)."""

    @staticmethod
    def forward(ctx, own: Tensor, blank: Tensor, kind: nn.Module) -> Tensor:  # type: ignore[no-untyped-def]
        with torch.enable_grad():
            at = own.detach().requires_grad_()
            (slope,) = torch.autograd.grad(kind.forward(at).sum(), at)
        rise, run = kind.forward(own) - kind.forward(blank), own - blank
        near = run.abs() < 1e-4
        ctx.save_for_backward(torch.where(near, slope, rise / torch.where(near, 1.0, run)))
        return kind.forward(own)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        return grad * ctx.saved_tensors[0], None, None


def rescaled(backbone: Backbone, own: Tensor, blank: Tensor, target: int) -> Tensor:
    """DeepLIFT by hand: the activations' inputs at the baseline, then one backward pass."""
    kinds = [m for m in backbone.model.modules() if type(m).__name__ in ACTIVATIONS]
    assert kinds
    inputs: dict[nn.Module, Tensor] = {}
    handles = [
        kind.register_forward_pre_hook(lambda module, args: inputs.update({module: args[0]}))
        for kind in kinds
    ]
    with torch.no_grad():
        plain_logits(backbone, blank)
    for handle in handles:
        handle.remove()
    handles = [
        kind.register_forward_hook(
            lambda module, args, _: Secant.apply(args[0], inputs[module], module)
        )
        for kind in kinds
    ]
    at = own.clone().requires_grad_()
    (slope,) = torch.autograd.grad(plain_logits(backbone, at)[0, target], at)
    for handle in handles:
        handle.remove()
    return ((own - blank) * slope).sum(-1)[0]


ACTIVATIONS = ("GELUActivation", "NewGELUActivation", "SiLUActivation", "Tanh")


@each_baseline
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-electra", "tiny-gpt2", "tiny-llama"])
def test_deeplift_is_the_rescale_rule_at_activations_and_the_gradient_elsewhere(
    name: str, baseline: str, loud: Loud
) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    found = DeepLIFT(baseline).explain(backbone, batch)
    for item, scores in per_item(found, batch):
        own, blank = looked_up(backbone, item), looked_up(backbone, item, baseline)
        target = int(plain_logits(backbone, own).argmax())
        expected = rescaled(backbone, own, blank, target) * torch.tensor(item.explainable)
        torch.testing.assert_close(
            scores, expected, rtol=1e-2, atol=2e-3 * float(expected.abs().max())
        )


class Straight(nn.Module):
    """In the place of layer normalisation: nothing."""

    def forward(self, states: Tensor) -> Tensor:
        return states


def straightened(backbone: Backbone) -> Backbone:
    """BERT in which activations are the only thing that is not linear: attention is even, and
    nothing is normalised."""
    model = backbone.model
    for layer in model.bert.encoder.layer:
        with torch.no_grad():
            layer.attention.self.query.weight.zero_()
            layer.attention.self.query.bias.zero_()
        layer.attention.output.LayerNorm = Straight()
        layer.output.LayerNorm = Straight()
    model.bert.embeddings.LayerNorm = Straight()
    return backbone


@each_baseline
def test_deeplift_adds_up_where_activations_are_all_that_is_not_linear(
    baseline: str, loud: Loud
) -> None:
    backbone = straightened(loud("tiny-bert"))
    batch = batch_of(backbone)
    found = DeepLIFT(baseline).explain(backbone, batch)
    slopes = static_explainer(f"integrated-gradients:steps=1:baseline={baseline}")
    gaps, rough = [], slopes.explain(backbone, batch).sum(-1)
    for item, scores in per_item(found, batch):
        own, blank = looked_up(backbone, item), looked_up(backbone, item, baseline)
        logits = plain_logits(backbone, own)
        target = int(logits.argmax())
        gaps.append(float((logits - plain_logits(backbone, blank))[0, target]))
        assert float(scores.sum()) == pytest.approx(gaps[-1], rel=1e-3, abs=1e-5)
    assert max(abs(rough - torch.tensor(gaps))) > 1e-2 * max(map(abs, gaps)), "linear: no test"


def test_deeplift_leaves_captum_and_the_model_as_they_were(loud: Loud) -> None:
    backbone = loud("tiny-electra")
    before = dict(SUPPORTED_NON_LINEAR)
    batch = batch_of(backbone)
    first, again = (DeepLIFT().explain(backbone, batch) for _ in range(2))
    assert torch.equal(first, again)
    assert before == SUPPORTED_NON_LINEAR
    assert GELUActivation not in SUPPORTED_NON_LINEAR
    for module in backbone.modules():
        if isinstance(module, GELUActivation):
            assert not {"input", "output"} & set(vars(module))
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_deeplift_needs_every_activation_once(loud: Loud) -> None:
    backbone = loud("tiny-bert")
    layers = backbone.model.bert.encoder.layer
    layers[1].intermediate.intermediate_act_fn = layers[0].intermediate.intermediate_act_fn
    with pytest.raises(IvraError) as caught:
        DeepLIFT().explain(backbone, batch_of(backbone))
    assert str(caught.value) == (
        "deeplift cannot explain tiny-bert: expected a model that uses each activation module "
        "once, this one shares them between layers; choose integrated-gradients"
    )
    assert GELUActivation not in SUPPORTED_NON_LINEAR
    assert not layers[0].intermediate.intermediate_act_fn._forward_hooks


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2"])
def test_occlusion_with_a_baseline_replaces_the_token(name: str, baseline: str, loud: Loud) -> None:
    backbone = loud(name)
    batch = batch_of(backbone, "left")
    found = Occlusion(baseline).explain(backbone, batch)
    for item, scores in per_item(found, batch):
        own, blank = looked_up(backbone, item), looked_up(backbone, item, baseline)
        whole = plain_logits(backbone, own).double().softmax(-1)[0]
        y_hat = int(whole.argmax())
        for place, yes in enumerate(item.explainable):
            if yes:
                one = own.clone()
                one[0, place] = blank[0, place]
                left = plain_logits(backbone, one).double().softmax(-1)[0, y_hat]
                expected = float(whole[y_hat] - left)
                assert float(scores[place]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("kind", [LIME, KernelSHAP])
def test_sampled_texts_with_a_baseline_differ_from_deleted_ones(
    kind: type[LIME] | type[KernelSHAP], baseline: str, loud: Loud
) -> None:
    backbone = loud("tiny-bert")
    batch = batch_of(backbone)
    chosen: Explainer = kind(40, baseline=baseline)
    found, deleted = (e.explain(backbone, batch) for e in (chosen, kind(40)))
    assert (found - deleted).abs().max() > 1e-3
    if kind is KernelSHAP:  # whatever is drawn, a row's values share out what all tokens are worth
        for item, scores in per_item(found, batch):
            ends = [
                plain_logits(backbone, looked_up(backbone, item, which)).softmax(-1)[0]
                for which in (None, baseline)
            ]
            y_hat = int(ends[0].argmax())
            gap = float(ends[0][y_hat] - ends[1][y_hat])
            assert float(scores.sum()) == pytest.approx(gap, abs=2e-3)
