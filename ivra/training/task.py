"""The rows a run learns from and is judged on."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Batch, Item, Row, batches, collate, cut, label_names, read_rows
from ivra.errors import IvraError
from ivra.tasks import QuestionAnswering, Task
from ivra.training.config import TrainConfig
from ivra.training.devices import Devices, share

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
    ``test``). A single file without ``eval_data``, and a hub data set without a validation part,
    give a seeded tenth of their rows up for validation. Without a test part the validation rows
    stand in for it.
    """
    source = Path(config.data).expanduser()
    if config.eval_data is not None:
        valid = read_part(config, config.eval_data, "dev")
        return Splits(read_part(config, config.data, "train"), valid, valid)
    rows = read_part(config, config.data, "train")
    if source.is_file():
        return _held_out(rows, config)
    if config.data == "builtin" or source.is_dir():
        valid = read_part(config, config.data, "dev")
        has_test = config.data == "builtin" or (source / "test.jsonl").is_file()
        return Splits(rows, valid, read_part(config, config.data, "test") if has_test else valid)
    held_out = _held_out(rows, config)
    valid = _hub_part(config, "dev") or held_out.valid
    train = rows if valid is not held_out.valid else held_out.train
    return Splits(train, valid, _hub_part(config, "test") or valid)


def _held_out(rows: list[Row], config: TrainConfig) -> Splits:
    if len(rows) < 2:
        raise IvraError(f"{config.data} has {len(rows)} row: expected at least 2 to hold one out")
    rows = list(rows)
    random.Random(config.seed).shuffle(rows)
    cut = max(1, round(HELD_OUT * len(rows)))
    return Splits(rows[cut:], rows[:cut], rows[:cut])


def _hub_part(config: TrainConfig, split: str) -> list[Row] | None:
    """A part of a hub data set whose train part could be read; ``None`` if it has no such part."""
    try:
        return read_part(config, config.data, split)
    except IvraError:
        return None


def read_part(config: TrainConfig, source: str, split: str) -> list[Row]:
    """Rows of one source, with the run's column names; a single file has no parts."""
    return read_rows(
        source,
        None if Path(source).expanduser().is_file() else split,
        text_column=config.text_column,
        pair_column=config.pair_column,
        label_column=config.label_column,
    )


def task_of(rows: Sequence[Row], config: TrainConfig) -> Task:
    """What training rows ask for: questions with answers, or else classes.

    Raises:
        IvraError: a question without an answer among questions with one.
    """
    asked = any(row.answers is not None for row in rows)
    bare = next((row for row in rows if not row.answers), None)
    if asked and bare is not None:
        raise IvraError(f"{bare.where or bare.id}: no answer: every training question needs one")
    return next(task for task in config.tasks if isinstance(task, QuestionAnswering) == asked)


def labels_of(rows: Sequence[Row], source: str, task: Task) -> list[str]:
    """The class names of training rows; none where ``task`` has no classes.

    Raises:
        IvraError: fewer than two classes, or a row without a label.
    """
    if not task.has_classes:
        return []
    bare = next((row for row in rows if row.label is None), None)
    if bare is not None:
        raise IvraError(f"{bare.where or bare.id}: no label: every training row needs one")
    names = label_names(rows)
    if len(names) < 2:
        raise IvraError(f"{source} has the single label {names}: expected at least two classes")
    return names


@dataclass(frozen=True)
class Encoder:
    """Rows to items and batches, with one backbone's tokenizer and padding.

    ``by_length`` puts rows of like length into a shuffled batch, so that little is padded.
    """

    backbone: Backbone
    max_length: int
    batch_size: int
    batch_tokens: int | None = None
    by_length: bool = False

    def items(self, rows: Sequence[Row], *, labelled: bool = True) -> list[Item]:
        """Tokenised rows; long contexts of questions in several windows.

        Raises:
            IvraError: a row that cannot be read, or is longer than the model has positions for.
        """
        backbone, most = self.backbone, self.backbone.most_tokens
        labels = backbone.labels if labelled else None
        items = backbone.task.encode(rows, backbone.tokenizer, labels, self.max_length)
        for item in items:
            if most is not None and len(item.input_ids) > most:
                raise IvraError(
                    f"{item.row.where or item.row.id}: {len(item.input_ids)} tokens, but the model "
                    f"has positions for {most}: expected max_length at most {most}, got "
                    f"{self.max_length}"
                )
        return items

    def lessons(self, rows: Sequence[Row]) -> list[Item]:
        """Tokenised rows that the task can be learnt from: windows that hold the answer.

        Raises:
            IvraError: none does.
        """
        found = self.backbone.task.lessons(self.items(rows))
        if not found and rows:
            raise IvraError(
                f"{rows[0].where or rows[0].id}: no window of {self.max_length} tokens holds a "
                "whole answer, here or in any other row: raise max_length or doc_stride"
            )
        return found

    def ordered(self, items: Sequence[Item]) -> list[Item]:
        """``items`` as they are read where their order is free: longest first if ``by_length``."""
        if not self.by_length:
            return list(items)
        return sorted(items, key=lambda item: -len(item.input_ids))

    def batches(self, items: Sequence[Item], shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Padded batches on the backbone's device, shuffled if a seed is given.

        Those of a number of tokens hold rows of like length where they are shuffled.
        """
        alike = self.by_length or self.batch_tokens is not None
        found = batches(
            items,
            self.batch_size,
            self.backbone.pad_id,
            self.backbone.padding_side,
            shuffle_seed=shuffle_seed,
            by_length=alike and shuffle_seed is not None,
            most_tokens=self.batch_tokens,
        )
        return (batch.to(self.backbone.device) for batch in found)

    def rows_of_batches(self, items: Sequence[Item]) -> list[int]:
        """How many rows each batch of an epoch of ``items`` has, however they are shuffled."""
        lengths = [len(item.input_ids) for item in items]
        if self.batch_tokens is not None:
            lengths.sort(reverse=True)
        places = cut(lengths, self.batch_size, self.batch_tokens)
        return [len(lengths[place]) for place in places]

    def batches_in(self, items: Sequence[Item]) -> int:
        """How many batches that are."""
        return len(self.rows_of_batches(items))

    def own_batches(
        self, items: Sequence[Item], devices: Devices
    ) -> Iterator[tuple[Tensor, Batch]]:
        """This process's share of the batches of ``items``, in order, with the rows' places.

        Where processes share the model out each gets as many: one that would be a batch short gets
        the last once more, with no places.
        """
        start = number = 0
        for number, batch in enumerate(self.batches(items)):
            if number % devices.count == devices.index:
                yield torch.arange(start, start + len(batch)), batch
            start += len(batch)
        if start and self.backbone.sharded and number % devices.count < devices.index:
            yield torch.arange(0), batch

    def shared(self, devices: Devices, accumulation: int) -> "Shared":
        """The batches of steps that several parts make up together."""
        return Shared(self, devices, accumulation)


@dataclass(frozen=True)
class Shared:
    """The rows of a step: those of every process, ``accumulation`` batches one after another.

    What a step sees is the same for any number of processes and batches whose product is the same.
    """

    encoder: Encoder
    devices: Devices
    accumulation: int

    def steps(self, items: Sequence[Item]) -> int:
        """Steps in an epoch.

        Raises:
            IvraError: not a row for each process.
        """
        rows, least = len(items), self.devices.count
        if rows < least:
            raise IvraError(f"{rows} rows for {least} processes: expected one for each at least")
        return sum(count >= least for count in self._wide.rows_of_batches(items))

    def batches(self, items: Sequence[Item], shuffle_seed: int) -> Iterator[Batch]:
        """The rows of every step of an epoch, of all processes.

        A last batch in which some process would have no row is left out.
        """
        found = self._wide.batches(items, shuffle_seed)
        return (batch for batch in found if len(batch) >= self.devices.count)

    def split(self, batch: Batch) -> Sequence[Batch]:
        """This process's part of a step, in up to ``accumulation`` batches, none of them empty."""
        count, places = (
            self.devices.count,
            share(len(batch), self.devices.count, self.devices.index),
        )
        own = batch.items[places]
        parts = min(self.accumulation, len(batch) // count)
        if count == parts == 1:
            return (batch,)
        backbone = self.encoder.backbone
        made = [own[share(len(own), parts, part)] for part in range(parts)]
        return [
            collate(rows, backbone.pad_id, backbone.padding_side).to(backbone.device)
            for rows in made
        ]

    @property
    def _wide(self) -> Encoder:
        parts = self.devices.count * self.accumulation
        encoder = self.encoder
        tokens = None if encoder.batch_tokens is None else encoder.batch_tokens * parts
        return replace(encoder, batch_size=encoder.batch_size * parts, batch_tokens=tokens)


def encoder_of(backbone: Backbone, config: TrainConfig) -> Encoder:
    """Rows and batches as ``config`` has them."""
    by_length = config.batching == "by-length"
    return Encoder(backbone, config.max_length, config.batch_size, config.batch_tokens, by_length)
