"""The tokenizer of the built-in data set, made in memory; nothing is downloaded."""

import string

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ivra.data.lexicon import lexicon

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LONGEST_PIECE = 64
"""Longer runs are cut before WordPiece, which would call them unknown (and is cubic in them)."""


def builtin_tokenizer() -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer that knows each word of :mod:`ivra.data.builtin`.

    Other words are spelled with single characters, so any printable ASCII text is tokenised
    without [UNK]; a character beyond ASCII (after accents are stripped) is one [UNK] by itself.
    Single texts are ``[CLS] A [SEP]`` and pairs ``[CLS] A [SEP] B [SEP]`` with token types 0, 1.
    """
    tokenizer = Tokenizer(
        models.WordPiece(
            vocab=_vocabulary(), unk_token="[UNK]", max_input_chars_per_word=LONGEST_PIECE
        )
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.BertPreTokenizer(),
            pre_tokenizers.Split(Regex(r"[^\x00-\x7f]"), "isolated"),
            pre_tokenizers.Split(Regex(rf".{{1,{LONGEST_PIECE}}}"), "isolated"),
        ]
    )
    special = [(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def _vocabulary() -> dict[str, int]:
    characters = sorted(string.ascii_lowercase + string.digits + string.punctuation)
    pieces = [*characters, *(f"##{character}" for character in characters)]
    words = [word for word in lexicon() if len(word) > 1]
    return {token: i for i, token in enumerate([*SPECIAL, *pieces, *words])}
