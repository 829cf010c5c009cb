"""Adapters against peft alone, and back from disk; what would be drawn anew is an error."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
)

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, Loading, Lora, load_backbone
from ivra.backbones.adapters import with_new_adapter
from ivra.data import Batch, builtin_rows, builtin_tokenizer, collate, encode_rows
from ivra.errors import IvraError

LABELS = ("negative", "positive")
LORA = Lora(r=4, alpha=8)
BITS = [None, 8, 4]


def shaken(backbone: Backbone, seed: int = 1) -> Backbone:
    """The same with adapters and head moved, as if they had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.learnable:
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return backbone


def batch_of(backbone: Backbone, side: str = "right", rows: int = 5) -> Batch:
    items = encode_rows(builtin_rows("dev")[:rows], backbone.tokenizer, LABELS, 48)
    return collate(items, backbone.pad_id, side)


@torch.no_grad()
def said(backbone: Backbone, side: str = "right") -> tuple[Tensor, Tensor]:
    """Logits and the saliency of a module drawn from a fixed seed."""
    module = InterpretableAttention(backbone.sizes, ("feature", "head", "layer", "value"))
    generator = torch.Generator().manual_seed(2)
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    batch = batch_of(backbone, side)
    encoding = backbone.encode(batch, module)
    return encoding.logits, module(encoding.readings, batch.explainable, encoding.classes)


def line_of(source: object, loading: Loading = Loading(), **more: object) -> str:  # noqa: B008
    with pytest.raises(IvraError) as caught:
        load_backbone(str(source), LABELS, loading=loading, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("heads", [2, 4])
def test_logits_are_those_of_peft_alone(heads: int, llama_folder: Callable[..., Path]) -> None:
    """Grouped keys and not, with a head that the base lacks, of another seed each."""
    folder = llama_folder(heads)
    backbone = shaken(load_backbone(str(folder), LABELS, seed=3, loading=Loading(lora=LORA)))
    assert backbone.head_is_new
    torch.manual_seed(8)
    plain = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, pad_token_id=backbone.pad_id, attn_implementation="eager"
    )
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="SEQ_CLS")
    alone = get_peft_model(plain, config)
    assert backbone.adapter is not None
    own, theirs = (dict(m.named_parameters()) for m in (backbone.adapter, alone))
    assert set(own) == set(theirs)
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(own[name])
    for side in ("left", "right"):
        batch = batch_of(backbone, side)
        found = said(backbone, side)[0]
        with torch.no_grad():
            expected = [
                alone.eval()(ids[mask][None]).logits
                for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
            ]
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2", "tiny-electra", "tiny-bert"])
def test_new_adapters_change_no_logit_and_are_all_that_can_be_learnt(name: str) -> None:
    plain = load_backbone(name, LABELS, seed=3)
    adapted = load_backbone(name, LABELS, seed=3, loading=Loading(lora=LORA))
    assert torch.equal(said(plain)[0], said(adapted)[0])
    learnable = {id(parameter) for parameter in adapted.learnable}
    moving = {id(p): n for n, p in adapted.named_parameters() if p.requires_grad}
    assert set(moving) == learnable
    assert all("lora_" in n or f"{plain.family.head}.modules_to_save" in n for n in moving.values())
    assert {
        n.rpartition(".lora_")[0].rpartition(".")[2] for n in moving.values() if "lora_" in n
    } == set(plain.family.lora_targets)
    assert len(plain.learnable) == len(list(plain.parameters()))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("pad", [True, False])
def test_what_was_saved_comes_back_to_the_bit(
    bits: int | None, dtype: str, pad: bool, llama_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Also where padding is the end of text, and with the head of another seed in the base."""
    loading = Loading(bits=bits, dtype=dtype, lora=LORA)  # type: ignore[arg-type]
    base = llama_folder(2, pad, tied=not pad)
    backbone = shaken(load_backbone(str(base), LABELS, seed=3, loading=loading))
    backbone.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        name.replace(".modules_to_save.default", "").replace(".default", "")
        for name, parameter in backbone.adapter.named_parameters()  # type: ignore[union-attr]
        if parameter.requires_grad
    }
    again = load_backbone(str(tmp_path), None, seed=77, loading=Loading(bits=bits, dtype=dtype))  # type: ignore[arg-type]
    assert not again.head_is_new
    assert again.labels == LABELS
    assert again.base == backbone.base
    assert again.base.model == str(base)  # type: ignore[union-attr]
    for found, expected in zip(said(again, "left"), said(backbone, "left"), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2", "tiny-electra"])
def test_merged_adapters_say_the_same_without_peft(
    name: str, bits: int | None, tmp_path: Path
) -> None:
    loading = Loading(bits=bits, lora=LORA)  # type: ignore[arg-type]
    backbone = shaken(load_backbone(name, LABELS, seed=3, loading=loading))
    backbone.save_pretrained(tmp_path / "adapters")
    merged = load_backbone(
        str(tmp_path / "adapters"),
        None,
        loading=Loading(bits=bits, merge=True),  # type: ignore[arg-type]
    )
    assert merged.adapter is None
    for found, expected in zip(said(merged), said(backbone), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path / "whole")
    assert not (tmp_path / "whole" / "adapter_config.json").exists()
    whole = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    assert not getattr(whole, "is_quantized", False)
    batch = batch_of(merged, rows=1)
    with torch.no_grad():
        found = whole.eval()(batch.input_ids, attention_mask=batch.attention_mask.long()).logits
    torch.testing.assert_close(found, said(backbone)[0][:1], rtol=1e-4, atol=1e-4)


def test_peft_itself_reads_the_folder(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    base = llama_folder()
    backbone = shaken(load_backbone(str(base), LABELS, seed=3, loading=Loading(lora=LORA)))
    backbone.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, pad_token_id=0)
    peft = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    batch = batch_of(backbone)
    with torch.no_grad():
        found = peft(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()).logits
    torch.testing.assert_close(found, said(backbone)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("bits", BITS)
def test_a_sibling_has_the_base_in_common_and_nothing_else(bits: int | None) -> None:
    loading = Loading(bits=bits, lora=LORA)  # type: ignore[arg-type]
    backbone = shaken(load_backbone("tiny-llama", LABELS, seed=3, loading=loading))
    before = said(backbone)
    first, second = backbone.sibling(1), backbone.sibling(2)

    def own(of: Backbone) -> set[int]:
        return {parameter.data_ptr() for parameter in of.learnable}

    everywhere = [{p.data_ptr() for p in of.parameters()} for of in (backbone, first, second)]
    assert everywhere[0] & everywhere[1] == everywhere[0] - own(backbone)
    assert everywhere[1] & everywhere[2] == everywhere[1] - own(first)
    if bits == 8:
        layers = [of.blocks[0].mlp.up_proj for of in (backbone, first)]
        assert layers[0] is not layers[1]
        assert layers[0].state.CB.data_ptr() == layers[1].state.CB.data_ptr()
    drawn = [parameter.detach().clone() for parameter in first.learnable]
    shaken(second)
    assert all(map(torch.equal, drawn, first.learnable))
    for found, expected in zip(said(backbone), before, strict=True):
        assert torch.equal(found, expected)
    assert first.head_is_new
    assert all(parameter.requires_grad for parameter in first.learnable)
    untaught = load_backbone("tiny-llama", LABELS, seed=3, loading=loading)
    scores = [of.model.score.weight.detach() for of in (untaught, first, second)]
    assert scores[0].std().item() == pytest.approx(scores[1].std().item(), rel=0.3), (
        "as it is drawn"
    )
    assert not torch.equal(scores[0], scores[1])
    for name, parameter in first.named_parameters():
        if "lora_B" in name:
            assert not parameter.any(), "an adapter begins without effect"


def test_the_same_seed_draws_the_same_sibling() -> None:
    backbone = load_backbone("tiny-gpt2", LABELS, seed=3, loading=Loading(lora=LORA))
    state = torch.get_rng_state()
    first, again = backbone.sibling(4), backbone.sibling(4)
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, first.learnable, again.learnable))
    assert torch.equal(said(first)[0], said(again)[0])


def test_a_target_that_is_no_linear_layer() -> None:
    loading = Loading(lora=Lora(target_modules=("q_proj", "query")))
    assert line_of("tiny-llama", loading) == (
        "target_modules: no linear layer is called 'query' in tiny-llama (model family 'llama'): "
        "expected some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    )
    loading = Loading(lora=Lora(target_modules=("embed_tokens",)))
    assert line_of("tiny-llama", loading).startswith(
        "target_modules: no linear layer is called 'embed_tokens'"
    )


def test_an_undeclared_family_gets_adapters_on_the_linear_layers_of_its_attention(
    tmp_path: Path,
) -> None:
    config = DistilBertConfig(
        vocab_size=len(builtin_tokenizer()), dim=16, n_layers=2, n_heads=2, hidden_dim=16
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "base")
    builtin_tokenizer().save_pretrained(tmp_path / "base")
    loading = Loading(bits=8, lora=LORA)
    backbone = shaken(load_backbone(str(tmp_path / "base"), LABELS, loading=loading))
    adapted = {n.partition(".lora_")[0].rpartition(".")[2] for n, _ in backbone.named_parameters()}
    assert adapted >= set(backbone.family.lora_targets) == {"q_lin", "k_lin", "v_lin", "out_lin"}
    backbone.save_pretrained(tmp_path / "saved")
    again = load_backbone(str(tmp_path / "saved"), None, loading=Loading(bits=8))
    assert torch.equal(said(again)[0], said(backbone)[0])


def test_a_part_of_the_head_inside_the_body_is_learnt_and_saved_where_it_is_new(
    tmp_path: Path,
) -> None:
    """A masked language model has no pooler, which the head of BERT reads."""
    tokenizer = builtin_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    lora = Lora(r=4, target_modules=("query", "dense"))
    loading = Loading(bits=8, lora=lora)
    backbone = shaken(load_backbone(str(tmp_path / "base"), LABELS, seed=3, loading=loading))
    backbone.save_pretrained(tmp_path / "saved")
    names = set(load_file(tmp_path / "saved" / "adapter_model.safetensors"))
    assert names >= {
        "base_model.model.bert.pooler.dense.weight",
        "base_model.model.classifier.weight",
        "base_model.model.bert.encoder.layer.1.output.dense.lora_A.weight",
    }
    again = load_backbone(str(tmp_path / "saved"), None, seed=8, loading=Loading(bits=8))
    assert not again.head_is_new
    assert torch.equal(said(again)[0], said(backbone)[0])
    without(tmp_path / "saved", "pooler")
    assert line_of(tmp_path / "saved").startswith(
        f"{tmp_path / 'saved'} lacks the weights of the head 'pooler', which "
    )


def test_a_family_of_which_no_target_is_declared() -> None:
    backbone = load_backbone("tiny-gpt2", LABELS)
    unknown = replace(backbone.family, lora_targets=())
    with pytest.raises(IvraError) as caught:
        with_new_adapter(backbone.model, unknown, LORA, ["score"], "some/model", None, 0)
    assert str(caught.value) == (
        "target_modules: none is declared in some/model (model family 'gpt2'): expected some of "
        "c_attn, c_proj, c_fc"
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    loading = Loading(lora=LORA)
    shaken(load_backbone("tiny-llama", LABELS, seed=3, loading=loading)).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(folder: Path, part: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if part not in k}, path)


def test_a_head_that_would_be_drawn_anew(saved: Path) -> None:
    without(saved, "score")
    rewrite(saved, modules_to_save=None)
    assert line_of(saved) == (
        f"{saved} lacks the weights of the head 'score', which tiny-llama lacks too: it would be "
        "drawn anew; save the adapters with modules_to_save=['score']"
    )


def test_adapters_that_lack_weights(saved: Path) -> None:
    without(saved, "layers.1.self_attn.v_proj.lora_B")
    assert line_of(saved) == (
        f"{saved} lacks the weights base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
        ": expected whole adapters"
    )


def test_adapters_of_another_rank_base_or_number_of_classes(saved: Path) -> None:
    rewrite(saved, r=2)
    assert line_of(saved) == (
        f"{saved}: base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight has the shape "
        "(4, 64): expected (2, 64) for this base and number of classes"
    )
    rewrite(saved, r=4, target_modules=["q_proj"])
    assert line_of(saved).endswith("which adapter_config.json does not speak of")
    rewrite(saved, target_modules=["query"])
    assert line_of(saved).startswith(f"cannot put the adapters of {saved} on tiny-llama (")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"peft_type": "PREFIX_TUNING"},
            "peft_type is 'PREFIX_TUNING': expected LORA, the adapters ivra reads",
        ),
        (
            {"base_model_name_or_path": None},
            "base_model_name_or_path is None: expected the folder or hub id of the model that is "
            "adapted",
        ),
    ],
)
def test_a_configuration_of_something_else(
    changes: dict[str, object], message: str, saved: Path
) -> None:
    rewrite(saved, **changes)
    assert line_of(saved) == f"{saved / 'adapter_config.json'}: {message}"


def test_a_damaged_configuration(saved: Path) -> None:
    (saved / "adapter_config.json").write_text("{")
    assert line_of(saved).startswith(f"cannot read {saved / 'adapter_config.json'}: ")


def test_truncated_missing_and_pickled_adapters_are_not_read(saved: Path) -> None:
    weights = saved / "adapter_model.safetensors"
    tensors = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-50])
    start = f"cannot load the adapters of {saved} ("
    assert line_of(saved).startswith(start)
    weights.unlink()
    torch.save(tensors, saved / "adapter_model.bin")
    assert line_of(saved).startswith(start)


def test_a_base_that_is_gone(llama_folder: Callable[..., Path], tmp_path: Path) -> None:
    gone = copy.copy(llama_folder())
    loading = Loading(lora=LORA)
    load_backbone(str(gone), LABELS, loading=loading).save_pretrained(tmp_path)
    rewrite(tmp_path, base_model_name_or_path=str(tmp_path / "moved"))
    assert line_of(tmp_path).startswith(f"cannot load the weights of {tmp_path / 'moved'} (")
