"""Checkpoints that cannot be used: one line that says what was expected."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    T5Config,
    ViTConfig,
)

from ivra.backbones import TINY, load_backbone
from ivra.data import Row, builtin_tokenizer, collate, encode_rows
from ivra.errors import IvraError

SUPPORTED = (
    "supported: electra, bert, roberta, xlm-roberta, gpt2, llama, and every other sequence "
    "classifier on transformers' attention interface"
)
VOCABULARY = len(builtin_tokenizer())
SMALL_BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def message_of(source: str, labels: tuple[str, ...] | None = None) -> str:
    """The error of loading ``source``, which must be one line."""
    with pytest.raises(IvraError) as caught:
        load_backbone(source, labels)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[PreTrainedConfig], Path]:
    """Saves a random classifier of a configuration, with the built-in tokenizer."""

    def build(config: PreTrainedConfig) -> Path:
        folder = tmp_path / config.model_type
        config.pad_token_id = 0
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
        builtin_tokenizer().save_pretrained(folder)
        return folder

    return build


@pytest.fixture
def bert(saved: Callable[[PreTrainedConfig], Path]) -> Path:
    """A whole checkpoint that loads."""
    folder = saved(BertConfig(**SMALL_BERT))
    assert load_backbone(str(folder)).sizes == (2, 2, 8, 8, 2, 1)
    return folder


T5 = T5Config(
    vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, eos_token_id=3
)
BART = BartConfig(
    vocab_size=VOCABULARY,
    d_model=16,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    eos_token_id=3,
    decoder_start_token_id=2,
)
DEBERTA = DebertaV2Config(**SMALL_BERT)


@pytest.mark.parametrize("config", [T5, DEBERTA, BART], ids=lambda c: c.model_type)
def test_a_family_that_cannot_be_read_fails_naming_what_is_supported(
    config: PreTrainedConfig, saved: Callable[[PreTrainedConfig], Path]
) -> None:
    folder = saved(config)
    message = message_of(str(folder))
    assert message.startswith(f"{folder} (model family '{config.model_type}') ")
    assert message.endswith(SUPPORTED)


def test_an_undeclared_family_on_the_interface_is_read(
    saved: Callable[[PreTrainedConfig], Path],
) -> None:
    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=16, n_layers=2, n_heads=2, hidden_dim=16, num_labels=3
    )
    folder = saved(config)
    backbone = load_backbone(str(folder))
    assert backbone.sizes == (2, 2, 8, 8, 3, 1)
    assert not backbone.head_is_new
    assert backbone.family.model_type == "distilbert"
    assert not backbone.family.causal
    assert backbone.family.pooled == "first"
    assert backbone.family.head == "classifier"
    assert set(backbone.family.lora_targets) >= {"q_lin", "v_lin"}
    items = encode_rows(
        [Row("a", ("not good .",)), Row("b", ("a dull film .",))], backbone.tokenizer, None, 32
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    for side in ("left", "right"):
        with torch.no_grad():
            found = backbone.encode(collate(items, backbone.pad_id, side)).logits
            expected = [model(torch.tensor([item.input_ids])).logits for item in items]
        torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-5)


def test_a_configuration_without_a_sequence_classifier(tmp_path: Path) -> None:
    ViTConfig(hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    assert message_of(str(tmp_path)) == (
        f"{tmp_path} (model family 'vit') has no sequence classifier in transformers; {SUPPORTED}"
    )


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert message_of(str(missing)) == (
        f"no model folder at {missing}: expected config.json and weights there"
    )
    assert message_of("./nowhere").startswith("no model folder at ./nowhere")


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    assert message_of(str(tmp_path)) == (
        f"{tmp_path} holds no config.json: expected a folder of save_pretrained"
    )


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "nonsense"}'])
def test_a_configuration_that_says_nothing_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    message = message_of(str(tmp_path))
    assert message.startswith(f"cannot load a model from '{tmp_path}' (")
    assert ", ".join(TINY) in message


def test_truncated_weights(bert: Path) -> None:
    weights = bert / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert message_of(str(bert)).startswith(f"cannot load the weights of {bert} (")


def test_weights_that_are_no_safetensors(bert: Path) -> None:
    (bert / "model.safetensors").write_bytes(b"not weights at all")
    assert message_of(str(bert)).startswith(f"cannot load the weights of {bert} (")


def test_missing_weights(bert: Path) -> None:
    (bert / "model.safetensors").unlink()
    assert message_of(str(bert)).startswith(f"cannot load the weights of {bert} (")


def test_pickled_weights_are_not_read(bert: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(bert)
    (bert / "model.safetensors").unlink()
    torch.save(model.state_dict(), bert / "pytorch_model.bin")
    assert message_of(str(bert)).startswith(f"cannot load the weights of {bert} (")


def test_weights_of_another_width(bert: Path) -> None:
    BertConfig(**{**SMALL_BERT, "hidden_size": 32}, pad_token_id=0).save_pretrained(bert)
    assert message_of(str(bert)).startswith(f"cannot load the weights of {bert} (")


def test_weights_that_lack_a_layer(bert: Path) -> None:
    BertConfig(**{**SMALL_BERT, "num_hidden_layers": 3}, pad_token_id=0).save_pretrained(bert)
    message = message_of(str(bert))
    assert message.startswith(f"{bert} lacks 16 weights of the model body (first: bert.encoder.")
    assert message.endswith("check that it was saved from the same architecture")


def test_a_missing_tokenizer(bert: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bert / name).unlink()
    assert sorted(path.name for path in bert.iterdir()) == ["config.json", "model.safetensors"]
    assert message_of(str(bert)).startswith(f"cannot load a tokenizer from '{bert}' (")


def test_a_damaged_tokenizer(bert: Path) -> None:
    (bert / "tokenizer.json").write_text('{"version": "1.0"')
    assert message_of(str(bert)).startswith(f"cannot load a tokenizer from '{bert}' (")


def like_gpt2(**special: str) -> PreTrainedTokenizerFast:
    """Words and an end of text, which is the last of an odd number of ids."""
    words = [chr(ord("a") + i) for i in range(20)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|endoftext|>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def small_gpt2(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        num_labels=2,
        bos_token_id=len(tokenizer) - 1,
        eos_token_id=len(tokenizer) - 1,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_gpt2_pads_with_its_end_of_text_the_last_id_of_its_vocabulary(tmp_path: Path) -> None:
    """Id 50256 of 50257 in the real one."""
    folder = small_gpt2(tmp_path, like_gpt2(eos_token="<|endoftext|>"))
    backbone = load_backbone(folder)
    assert backbone.pad_id == backbone.tokenizer.pad_token_id == 20


def test_a_tokenizer_with_neither_padding_nor_end(tmp_path: Path) -> None:
    folder = small_gpt2(tmp_path, like_gpt2())
    assert message_of(folder) == (
        f"the tokenizer of {folder} has neither a padding nor an end token"
    )
