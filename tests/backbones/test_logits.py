"""Every tiny backbone against Hugging Face's own logits, hidden states and attention."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.backbones.hook import Capture, capturing
from ivra.data import Batch, Item, builtin_tokenizer, collate
from ivra.errors import IvraError

Loud = Callable[[str], Backbone]
Logits = Callable[[Backbone, Sequence[Item]], Tensor]

both_sides = pytest.mark.parametrize("side", ["right", "left"])
ENCODERS = ["tiny-electra", "tiny-bert", "tiny-roberta", "tiny-xlm-roberta"]
DECODERS = ["tiny-gpt2", "tiny-llama"]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def batch_of(backbone: Backbone, items: Sequence[Item], side: str = "right") -> Batch:
    return collate(items, backbone.pad_id, side)


def per_row(values: Tensor, batch: Batch) -> list[Tensor]:
    """``values (B, ..., L)`` of each row's visible tokens."""
    return [values[i][..., batch.attention_mask[i]] for i in range(len(batch))]


def test_the_weights_are_loud_enough_for_a_wrong_input_to_show(
    backbone: Backbone, items: list[Item], reference_logits: Logits
) -> None:
    def without(item: Item, place: int) -> Item:
        ids = item.input_ids
        types = item.token_type_ids
        return item._replace(
            input_ids=ids[:place] + ids[place + 1 :],
            token_type_ids=types[:place] + types[place + 1 :],
        )

    def swapped(item: Item, place: int) -> Item:
        ids = list(item.input_ids)
        ids[place], ids[place + 1] = ids[place + 1], ids[place]
        return item._replace(input_ids=ids)

    item = items[1]
    variants = [item, without(item, 3), swapped(item, 3), *items[2:]]
    logits = reference_logits(backbone, variants)
    for other in logits[1:]:
        assert (other - logits[0]).abs().max() > 2e-3


@both_sides
def test_batched_logits_are_those_of_each_row_alone(
    backbone: Backbone, items: list[Item], side: str, reference_logits: Logits
) -> None:
    with torch.no_grad():
        found = backbone.encode(batch_of(backbone, items, side)).logits
    close(found, reference_logits(backbone, items))


def test_logits_of_one_row_alone(
    backbone: Backbone, items: list[Item], reference_logits: Logits
) -> None:
    expected = reference_logits(backbone, items)
    for item, logits in zip(items, expected, strict=True):
        with torch.no_grad():
            found = backbone.encode(batch_of(backbone, [item])).logits[0]
        close(found, logits)


@both_sides
def test_logits_of_pairs_with_token_types(
    backbone: Backbone, pairs: list[Item], side: str, reference_logits: Logits
) -> None:
    assert 1 in pairs[0].token_type_ids
    with torch.no_grad():
        found = backbone.encode(batch_of(backbone, pairs, side)).logits
    close(found, reference_logits(backbone, pairs))


@both_sides
def test_hidden_states_are_averaged_over_the_layers_outputs(
    backbone: Backbone, items: list[Item], side: str, reference_outputs: Callable[..., list]
) -> None:
    batch = batch_of(backbone, items, side)
    with torch.no_grad():
        hidden = backbone.encode(batch, hidden=True).hidden
    assert hidden is not None
    outputs = reference_outputs(backbone, items, output_hidden_states=True)
    for found, output in zip(per_row(hidden.transpose(1, 2), batch), outputs, strict=True):
        states = sum(output.hidden_states[1:]) / (len(output.hidden_states) - 1)
        close(found.T, states[0], 3e-5)


@both_sides
@pytest.mark.parametrize("name", ["tiny-electra", "tiny-bert", *DECODERS])
def test_padding_may_be_an_ordinary_token_that_occurs_in_a_row(
    name: str, items: list[Item], side: str, loud: Loud, reference_logits: Logits
) -> None:
    """As with ``pad = eos``. RoBERTa is out: it tells positions by ``ids != pad`` itself."""
    backbone = loud(name)
    ordinary = items[1].input_ids[3]
    assert ordinary in items[1].input_ids[1:-1]
    backbone.model.config.pad_token_id = ordinary
    assert backbone.pad_id == ordinary
    with torch.no_grad():
        found = backbone.encode(batch_of(backbone, items, side)).logits
    close(found, reference_logits(backbone, items))


@both_sides
@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_reads_the_same_token_as_transformers_where_rows_end_in_the_padding_token(
    name: str, items: list[Item], side: str, loud: Loud, reference_logits: Logits
) -> None:
    backbone = loud(name)
    ends = {item.input_ids[-1] for item in items}
    assert len(ends) == 1, "every row ends in [SEP]"
    other_pad = reference_logits(backbone, items)
    backbone.model.config.pad_token_id = ends.pop()
    expected = reference_logits(backbone, items)
    assert (expected - other_pad).abs().max() > 1e-2, "it is the token before that is read"
    with torch.no_grad():
        found = backbone.encode(batch_of(backbone, items, side)).logits
    close(found, expected)


def test_readings_do_not_depend_on_the_padding_side(backbone: Backbone, items: list[Item]) -> None:
    module = InterpretableAttention(backbone.sizes, ("feature", "head", "layer", "value"))
    torch.nn.init.normal_(module.value, generator=torch.Generator().manual_seed(0))
    right, left = (batch_of(backbone, items, side) for side in ("right", "left"))
    assert not torch.equal(right.attention_mask, left.attention_mask)
    with torch.no_grad():
        one, two = backbone.encode(right, module), backbone.encode(left, module)
    assert len(one.readings) == backbone.sizes.layers
    for a, b in zip(one.readings, two.readings, strict=True):
        for x, y in zip(per_row(a.heads, right), per_row(b.heads, left), strict=True):
            close(x, y, 1e-4)
        assert a.values is not None
        assert b.values is not None
        for x, y in zip(per_row(a.values, right), per_row(b.values, left), strict=True):
            close(x, y, 1e-4)
    saliencies = [
        per_row(module(e.readings, b.explainable, e.predictions), b)
        for e, b in ((one, right), (two, left))
    ]
    for x, y in zip(*saliencies, strict=True):
        close(x, y)


def test_readings_do_not_depend_on_the_rows_beside(backbone: Backbone, items: list[Item]) -> None:
    module = InterpretableAttention(backbone.sizes)
    batch = batch_of(backbone, items)
    with torch.no_grad():
        together = backbone.encode(batch, module).readings
        for row, item in enumerate(items):
            alone = backbone.encode(batch_of(backbone, [item]), module).readings
            for a, b in zip(together, alone, strict=True):
                close(per_row(a.heads, batch)[row], b.heads[0], 1e-4)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoders_readings_are_the_logits_of_its_own_attention(
    name: str, items: list[Item], loud: Loud, reference_outputs: Callable[..., list]
) -> None:
    """``log A_nj = q_n . k_j - log Z_n``: their mean over n is psi_j up to one constant a head."""
    backbone = loud(name)
    module = InterpretableAttention(backbone.sizes, levels=())
    batch = batch_of(backbone, items)
    with torch.no_grad():
        readings = backbone.encode(batch, module).readings
    outputs = reference_outputs(backbone, items, output_attentions=True)
    for layer, reading in enumerate(readings):
        for found, output in zip(per_row(reading.heads, batch), outputs, strict=True):
            expected = output.attentions[layer][0].double().log().mean(1)
            close(
                found.double() - found.double().mean(-1, keepdim=True),
                expected - expected.mean(-1, keepdim=True),
                1e-4,
            )


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoders_readings_are_the_logits_of_its_own_attention(
    name: str, items: list[Item], loud: Loud, reference_outputs: Callable[..., list]
) -> None:
    """The same with the last query alone, which sees every key: a reader that looks there."""
    backbone = loud(name)
    item = items[1]
    last = torch.zeros(1, len(item.input_ids), dtype=torch.bool)
    last[0, -1] = True

    class LastQuery:
        def read_layer(self, layer, inputs):
            module = InterpretableAttention(backbone.sizes, levels=())
            return module.read_layer(layer, inputs._replace(visible=last))

    with torch.no_grad():
        readings = backbone.encode(batch_of(backbone, [item]), LastQuery()).readings
    (output,) = reference_outputs(backbone, [item], output_attentions=True)
    for layer, reading in enumerate(readings):
        expected = output.attentions[layer][0, :, -1].double().log()
        found = reading.heads[0].double()
        close(
            found - found.mean(-1, keepdim=True),
            expected - expected.mean(-1, keepdim=True),
            1e-4,
        )


@both_sides
def test_the_readout_is_the_models_own_attention_from_the_token_its_head_reads(
    backbone: Backbone, items: list[Item], side: str, reference_outputs: Callable[..., list]
) -> None:
    """Encoders read the first token, decoders the last, under the mask they have there."""
    batch = batch_of(backbone, items, side)
    module = InterpretableAttention(backbone.sizes, levels=("readout",))
    with torch.no_grad():
        readings = backbone.encode(batch, module).readings
    outputs = reference_outputs(backbone, items, output_attentions=True)
    place = -1 if backbone.family.causal else 0
    for layer, reading in enumerate(readings):
        assert reading.attending is None
        for found, output in zip(per_row(reading.readout, batch), outputs, strict=True):
            close(found[0], output.attentions[layer][0, :, place])


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2"])
def test_a_place_in_the_middle_of_a_decoder_sees_nothing_later(
    name: str, items: list[Item], loud: Loud, reference_outputs: Callable[..., list]
) -> None:
    """With and without a mask of the kernel's: a row alone has none."""
    backbone = loud(name)
    outputs = reference_outputs(backbone, items, output_attentions=True)
    module = InterpretableAttention(backbone.sizes, levels=("readout",))
    for rows, side in ((items, "left"), (items, "right"), (items[1:2], "right")):
        batch = batch_of(backbone, rows, side)
        first = batch.attention_mask.int().argmax(-1, keepdim=True)
        backbone.readout_places = lambda batch, outcome, first=first: first + torch.tensor([[1, 2]])
        with torch.no_grad():
            readings = backbone.encode(batch, module).readings
        for layer, reading in enumerate(readings):
            expected = outputs if rows is items else outputs[1:2]
            for found, output in zip(per_row(reading.readout, batch), expected, strict=True):
                close(found[0], output.attentions[layer][0, :, 1])
                close(found[1], output.attentions[layer][0, :, 2])


def test_reading_changes_no_logit(backbone: Backbone, items: list[Item]) -> None:
    batch = batch_of(backbone, items)
    module = InterpretableAttention(backbone.sizes)
    with torch.no_grad():
        assert torch.equal(
            backbone.encode(batch).logits, backbone.encode(batch, module, hidden=True).logits
        )


def test_without_a_reader_there_are_no_readings_and_no_hidden_states(
    backbone: Backbone, items: list[Item]
) -> None:
    with torch.no_grad():
        encoding = backbone.encode(batch_of(backbone, items))
    assert encoding.readings == ()
    assert encoding.hidden is None


def test_calls_outside_capturing_capture_nothing(backbone: Backbone, items: list[Item]) -> None:
    batch = batch_of(backbone, items)
    module = InterpretableAttention(backbone.sizes)
    capture = Capture(batch.attention_mask, module)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}
    with torch.no_grad():
        with capturing(capture):
            backbone.model(**inputs)
        assert len(capture.readings) == capture.layers == backbone.sizes.layers
        backbone.model(**inputs)
        backbone.encode(batch, module)
    assert len(capture.readings) == capture.layers == backbone.sizes.layers


def test_a_failing_forward_leaves_no_capture_behind(backbone: Backbone, items: list[Item]) -> None:
    batch = batch_of(backbone, items)
    module = InterpretableAttention(backbone.sizes)
    beyond = batch.input_ids.clone()
    beyond[0, 0] = len(backbone.tokenizer)
    capture = Capture(batch.attention_mask, module)
    with pytest.raises(IndexError), capturing(capture):
        backbone.model(input_ids=beyond)
    with torch.no_grad():
        backbone.model(input_ids=batch.input_ids)
    assert capture.layers == 0


def test_sizes_are_those_of_the_configuration(backbone: Backbone) -> None:
    assert backbone.sizes == (3, 4, 16, 16, 3, 1)
    assert backbone.family.model_type == backbone.model.config.model_type


def test_the_seed_decides_a_tiny_models_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, three = (load_backbone("tiny-bert", seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    weights = [backbone.model.classifier.weight for backbone in (one, two, three)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def save(backbone: Backbone, folder: Path) -> str:
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


def save_headless(backbone: Backbone, folder: Path) -> str:
    """The body alone, as a pretrained checkpoint brings it; names of classes are generic."""
    body = getattr(backbone.model, backbone.model.base_model_prefix)
    body.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    body.config.label2id = {name: i for i, name in body.config.id2label.items()}
    body.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_saved_model_is_loaded_with_its_head(
    backbone: Backbone, items: list[Item], tmp_path: Path
) -> None:
    again = load_backbone(save(backbone, tmp_path))
    assert not again.head_is_new
    assert again.labels == ("no", "maybe", "yes")
    batch = batch_of(backbone, items)
    with torch.no_grad():
        assert torch.equal(again.encode(batch).logits, backbone.encode(batch).logits)


def test_a_saved_model_is_read_by_transformers_alone(
    backbone: Backbone, items: list[Item], tmp_path: Path, reference_logits: Logits
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(save(backbone, tmp_path)).eval()
    assert model.config._attn_implementation != "ivra"
    ids = torch.tensor([items[1].input_ids])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    close(found, reference_logits(backbone, [items[1]]))


def test_a_checkpoint_without_a_head_gets_a_new_one(
    backbone: Backbone, items: list[Item], tmp_path: Path
) -> None:
    folder = save_headless(backbone, tmp_path)
    AutoModel.from_pretrained(folder)
    again = load_backbone(folder, ("b", "a"))
    assert again.head_is_new
    assert again.labels == ("b", "a")
    assert again.sizes.classes == 2
    batch = batch_of(backbone, items)
    with torch.no_grad():
        states = [b.encode(batch, hidden=True).hidden for b in (backbone, again)]
        twin, other = (load_backbone(folder, ("b", "a"), seed=seed) for seed in (0, 1))
        same, different = twin.encode(batch).logits, other.encode(batch).logits
        found = again.encode(batch).logits
    assert torch.equal(*states), "the body is the checkpoint's"
    assert torch.equal(found, same), "the head is drawn from the seed"
    assert not torch.equal(found, different)


def test_random_weights_take_the_architecture_only(
    backbone: Backbone, items: list[Item], tmp_path: Path
) -> None:
    again = load_backbone(save(backbone, tmp_path), seed=1, random_weights=True)
    assert again.head_is_new
    assert again.sizes == backbone.sizes
    batch = batch_of(backbone, items)
    with torch.no_grad():
        found, trained = again.encode(batch).logits, backbone.encode(batch).logits
    assert (found - trained).abs().max() > 1e-2


@pytest.fixture
def trained(loud: Loud, tmp_path: Path) -> Callable[[Sequence[str]], str]:
    """Saves a small BERT whose head is trained for the given class names."""

    def build(names: Sequence[str]) -> str:
        backbone = load_backbone("tiny-bert", tuple(names))
        return save(backbone, tmp_path / "model")

    return build


def test_a_trained_head_keeps_its_own_order_of_labels(trained: Callable) -> None:
    found = load_backbone(trained(["good", "bad"]), ("bad", "good"))
    assert found.labels == ("good", "bad")
    assert not found.head_is_new


def test_a_trained_heads_labels_match_whatever_their_case(trained: Callable) -> None:
    found = load_backbone(trained(["NEGATIVE", "POSITIVE"]), ("positive", "negative"))
    assert found.labels == ("negative", "positive")


def test_labels_matched_by_case_are_the_same_after_saving(
    trained: Callable, tmp_path: Path
) -> None:
    found = load_backbone(trained(["NEGATIVE", "POSITIVE"]), ("positive", "negative"))
    assert load_backbone(save(found, tmp_path / "run")).labels == found.labels


def test_generic_labels_of_a_trained_head_take_the_datas_names(
    trained: Callable, tmp_path: Path
) -> None:
    found = load_backbone(trained(["LABEL_0", "LABEL_1"]), ("bad", "good"))
    assert found.labels == ("bad", "good")
    assert load_backbone(save(found, tmp_path / "run")).labels == ("bad", "good")


def test_a_new_heads_labels_are_the_same_after_saving(loud: Loud, tmp_path: Path) -> None:
    """A body saved from a classifier brings that classifier's names along."""
    backbone = load_backbone("tiny-bert", ("bad", "good"))
    backbone.model.bert.save_pretrained(tmp_path / "body")
    backbone.tokenizer.save_pretrained(tmp_path / "body")
    found = load_backbone(str(tmp_path / "body"), ("good", "bad"))
    assert found.head_is_new
    assert load_backbone(save(found, tmp_path / "run")).labels == found.labels


def test_labels_that_a_trained_head_does_not_know(trained: Callable) -> None:
    folder = trained(["good", "bad"])
    with pytest.raises(IvraError) as caught:
        load_backbone(folder, ("good", "ugly"))
    assert str(caught.value) == (
        f"the trained head of {folder} knows the labels good, bad, the data has good, ugly: "
        "rename the data's labels, or start from a checkpoint without a head"
    )


def test_more_labels_than_a_trained_head_has(trained: Callable) -> None:
    folder = trained(["good", "bad"])
    with pytest.raises(IvraError) as caught:
        load_backbone(folder, ("good", "bad", "ugly"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"cannot load the weights of {folder} (")
    assert "the data's number of classes" in str(caught.value)


def test_head_first_gives_the_way_back(loud: Loud, items: list[Item]) -> None:
    batch = batch_of(loud("tiny-bert"), items, "left")
    moved, back = loud("tiny-bert").head_first(batch)
    right = batch_of(loud("tiny-bert"), items, "right")
    for name in ("input_ids", "token_type_ids", "attention_mask", "explainable"):
        assert torch.equal(getattr(moved, name), getattr(right, name))
    assert back is not None
    assert torch.equal(moved.input_ids.gather(1, back), batch.input_ids)
    assert loud("tiny-bert").head_first(right)[1] is None
    assert loud("tiny-llama").head_first(batch)[1] is None


def test_a_rows_explainable_tokens_do_not_change_its_logits(
    backbone: Backbone, items: list[Item]
) -> None:
    batch = batch_of(backbone, items)
    other = dataclasses.replace(batch, explainable=batch.attention_mask)
    with torch.no_grad():
        assert torch.equal(backbone.encode(batch).logits, backbone.encode(other).logits)


def test_the_tiny_models_use_the_built_in_tokenizer(backbone: Backbone) -> None:
    assert backbone.tokenizer.get_vocab() == builtin_tokenizer().get_vocab()
    assert backbone.pad_id == backbone.tokenizer.pad_token_id
