"""The rows a run learns from and is judged on."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ivra.backbones import Backbone
from ivra.data import Batch, Item, Row, batches, encode_rows, label_names, read_rows
from ivra.errors import IvraError
from ivra.training.config import TrainConfig

HELD_OUT = 0.1


@dataclass(frozen=True)
class Splits:
    """Rows by use. ``test`` is where figures are reported: the data's test part if it has one."""

    train: list[Row]
    valid: list[Row]
    test: list[Row]


def read_splits(config: TrainConfig) -> Splits:
    """The rows that ``config`` names.

    Built-in data, a folder and a hub data set bring their own parts (``train``, ``dev``,
    ``test``). A single file without ``eval_data`` gives a seeded tenth of its rows up for
    validation.
    """
    has_parts = not Path(config.data).is_file()
    if config.eval_data is not None:
        valid = read_part(config, config.eval_data, "dev")
        train = read_part(config, config.data, "train")
        return Splits(train, valid, valid)
    if has_parts:
        train = read_part(config, config.data, "train")
        valid = read_part(config, config.data, "dev")
        has_test = not Path(config.data).is_dir() or (Path(config.data) / "test.jsonl").is_file()
        return Splits(train, valid, read_part(config, config.data, "test") if has_test else valid)
    rows = read_part(config, config.data, "train")
    if len(rows) < 2:
        raise IvraError(f"{config.data} has {len(rows)} row: expected at least 2 to hold one out")
    random.Random(config.seed).shuffle(rows)
    cut = max(1, round(HELD_OUT * len(rows)))
    return Splits(rows[cut:], rows[:cut], rows[:cut])


def read_part(config: TrainConfig, source: str, split: str) -> list[Row]:
    """Rows of one source, with the run's column names; a single file has no parts."""
    return read_rows(
        source,
        None if Path(source).is_file() else split,
        text_column=config.text_column,
        pair_column=config.pair_column,
        label_column=config.label_column,
    )


def labels_of(rows: Sequence[Row], source: str) -> list[str]:
    """The class names of training rows.

    Raises:
        IvraError: fewer than two classes, or a row without a label.
    """
    bare = next((row for row in rows if row.label is None), None)
    if bare is not None:
        raise IvraError(f"{bare.where or bare.id}: no label: every training row needs one")
    names = label_names(rows)
    if len(names) < 2:
        raise IvraError(f"{source} has the single label {names}: expected at least two classes")
    return names


@dataclass(frozen=True)
class Encoder:
    """Rows to items and batches, with one backbone's tokenizer and padding."""

    backbone: Backbone
    max_length: int
    batch_size: int

    def items(self, rows: Sequence[Row], *, labelled: bool = True) -> list[Item]:
        """Tokenised rows."""
        labels = self.backbone.labels if labelled else None
        return encode_rows(rows, self.backbone.tokenizer, labels, self.max_length)

    def batches(self, items: Sequence[Item], shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Padded batches on the backbone's device, shuffled if a seed is given."""
        found = batches(
            items,
            self.batch_size,
            self.backbone.pad_id,
            self.backbone.padding_side,
            shuffle_seed=shuffle_seed,
        )
        return (batch.to(self.backbone.device) for batch in found)
