"""Data: rows from anywhere, as batches of token ids.

    rows = read_rows("builtin", "train")                  # or "reviews.csv", "folder", "imdb"
    labels = label_names(rows)                            # ["negative", "positive"]
    tokenizer = builtin_tokenizer()                       # or any fast Hugging Face tokenizer
    items = encode_rows(rows, tokenizer, labels, max_length=128)
    for batch in batches(items, 32, tokenizer.pad_token_id, "right", shuffle_seed=0):
        ...                                               # batch.input_ids, batch.explainable, ...

A :class:`Row` is one example as it was read: one text or a pair, perhaps a label, perhaps a
human rationale as character spans. An :class:`Item` is the row as token ids, with what each
token stands for: its text, its word, its characters, whether it may receive saliency and
whether a human marked it. A :class:`Batch` is padded items. Each holds the one before, so a
report can always go back to the text.

Reading checks everything and repairs nothing: what is malformed is one
:class:`~ivra.errors.IvraError` that names file and line, before any model is loaded.

The built-in data set needs no file and no network. Its reviews are generated from a seed, with
evidence that is known to the character and that neither a word list nor a position gives away.
"""

from ivra.data.batch import NOWHERE, Answer, Batch, Item, Row, Span, collate
from ivra.data.builtin import builtin_rows
from ivra.data.encoding import NO_LABEL, batches, cut, encode_questions, encode_rows
from ivra.data.eraser import document_ids, document_tokens
from ivra.data.readers import fingerprint, label_names, read_rows
from ivra.data.tokenizer import builtin_tokenizer

__all__ = [
    "NOWHERE",
    "NO_LABEL",
    "Answer",
    "Batch",
    "Item",
    "Row",
    "Span",
    "batches",
    "builtin_rows",
    "builtin_tokenizer",
    "collate",
    "cut",
    "document_ids",
    "document_tokens",
    "encode_questions",
    "encode_rows",
    "fingerprint",
    "label_names",
    "read_rows",
]
