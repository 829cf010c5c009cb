"""Stage 1 teaches the backbone the task, stage 2 trains by the criteria."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone
from ivra.data import Batch, Item
from ivra.errors import ElsewhereError, IvraError, NotFiniteError
from ivra.losses import (
    Criterion,
    Setup,
    Student,
    View,
    check_terms,
    known_criteria,
    parse_criteria,
)
from ivra.shapes import TokenMask, TokenScores
from ivra.training.combining import TASK, Mixer
from ivra.training.config import TrainConfig
from ivra.training.devices import ALONE, Devices
from ivra.training.keeping import Validation
from ivra.training.loop import (
    Hooks,
    Loop,
    Objective,
    Outcome,
    Saver,
    linear_schedule,
    step_schedule,
    trainable,
)
from ivra.training.state import State
from ivra.training.stream import endless
from ivra.training.student import students_of
from ivra.training.task import Encoder
from ivra.training.temperature import begin_at_entropy
from ivra.training.whitening import WhitenedAdamW, linear_part, whitening


@torch.no_grad()
def accuracy(
    backbone: Backbone, encoder: Encoder, items: Sequence[Item], devices: Devices = ALONE
) -> float:
    """Share of rows that the backbone predicts right, in ``[0, 1]``: the gold label, or one of the
    gold answers (SQuAD's exact match)."""
    items = encoder.ordered(items)
    own = encoder.own_batches(items, devices)
    said = ((places, batch, backbone.encode(batch).logits) for places, batch in own)
    return _share_right(backbone, items, said, devices)


def _share_right(
    backbone: Backbone,
    items: Sequence[Item],
    said: Iterable[tuple[Tensor, Batch, Tensor]],  # outputs, of batches of unlike sizes
    devices: Devices,
) -> float:
    """The same, of what each process says of its batches of ``items``, whose places are given."""
    task, named = backbone.task, {}
    for number, (places, batch, outcome) in enumerate(one for one in said if len(one[0])):
        named[f"places.{number}"] = places
        named[f"said.{number}"] = task.unpadded(outcome, batch).float().cpu()
    parts = [
        (found[f"places.{number}"], found[f"said.{number}"])
        for found in devices.tensors(named)
        for number in range(len(found) // 2)
    ]
    right = task.right(items, task.filled(len(items), parts, backbone.sizes.classes))
    return int(right.sum()) / len(right)


def thinned(explainable: TokenMask, share: float) -> TokenScores:
    """A 0/1 ``keep (B, L)`` that removes a random part of the tokens of a ``share`` of the rows.

    Each such row draws how much of it goes, from nothing to everything explainable.
    """
    rows, length = explainable.shape
    device = explainable.device
    part = torch.rand(rows, 1, device=device) * (torch.rand(rows, 1, device=device) < share)
    gone = (torch.rand(rows, length, device=device) < part) & explainable
    return (~gone).float()


def finetune(
    config: TrainConfig,
    encoder: Encoder,
    train: Sequence[Item],
    valid: Sequence[Item],
    hooks: tuple[Hooks, ...],
    saver: Saver | None = None,
    state: State | None = None,
    devices: Devices = ALONE,
) -> Outcome:
    """Stage 1: cross-entropy with the gold labels; the most accurate iteration is kept.

    It goes on from ``state``, one that ``saver`` got.
    """
    backbone, task = encoder.backbone, encoder.backbone.task
    epochs = config.finetune_epochs or (24.0 if config.is_tiny else 3.0)
    shared = encoder.shared(devices, config.gradient_accumulation_steps)
    steps = math.ceil(epochs * shared.steps(train))
    valid = valid[: config.validation_rows]
    decay = config.finetune_weight_decay
    if decay is None:
        decay = 0.3 if config.is_tiny else 0.01
    share = config.finetune_removal
    if share is None:
        share = 0.2 if config.is_tiny else 0.0

    def objective(batch: Batch) -> Objective:
        if share:
            logits = backbone.rerun(batch, thinned(batch.explainable, share), task.removal)
        else:
            logits = backbone.encode(batch).logits
        loss = task.loss(logits, task.gold(batch))
        return Objective(loss, {"task": loss.item()})

    def validate() -> Validation:
        backbone.eval()
        share = accuracy(backbone, encoder, valid, devices)
        backbone.train()
        return Validation(share, {task.measure: share})

    loop = Loop(
        stage="finetune",
        groups=[
            (trainable(backbone.learnable, True), config.finetune_lr or config.rate(config.is_tiny))
        ],
        objective=objective,
        steps=steps,
        schedule=linear_schedule(steps),
        clip=config.clip,
        weight_decay=decay,
        validate=validate,
        validations=max(1, round(epochs)),
        hooks=hooks,
        skip_nonfinite=config.skip_nonfinite,
        saver=saver,
        split=shared.split,
        devices=devices,
    )
    backbone.train()
    outcome = loop.run(endless(lambda n: shared.batches(train, config.seed + n)), state)
    backbone.eval()
    backbone.head_is_new = False
    return outcome


FIRST_ROWS = 256
"""Rows by which the module is made ready: its temperature set, its steps whitened."""
MIXER = "mixing"
"""What the mixer is called in a checkpoint, beside the criteria."""


class _Advance(Hooks):
    """Tells the mixer of each step."""

    def __init__(self, mixer: Mixer) -> None:
        self._mixer = mixer

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        self._mixer.advance()


@dataclass
class CriteriaStage:
    """Stage 2: weighted criteria, plus the task's cross-entropy where the backbone trains.

    The backbone runs without dropout, so that both passes of every difference see one function.
    With a pairwise criterion batches are shuffled whatever ``config.batching`` says: rows of one
    length teach to tell those apart, and nothing of rows of unlike length.
    """

    config: TrainConfig
    encoder: Encoder
    module: InterpretableAttention
    train: list[Item]
    valid: list[Item]
    hooks: tuple[Hooks, ...] = ()
    devices: Devices = ALONE

    def __post_init__(self) -> None:
        self.backbone = self.encoder.backbone.eval()
        self.task = self.backbone.task
        removal = self.config.removal
        self.removal = self.task.removal if removal == "auto" else removal
        self.trains_backbone = self.config.train != "module"
        self.weights = dict(parse_criteria(self.config.criteria))
        own = self.module
        self.moving = linear_part(own) if self.config.whiten else own.learnable
        self.train = list(self.train)
        self.needs_hidden = False
        setup = Setup(
            seed=self.config.seed,
            bins=self.config.bins,
            gradient=self.config.topk_gradient,
            new_student=self._new_student,
            normaliser=self.config.saliency_norm,
        )
        known = known_criteria()
        self.criteria: list[Criterion] = [
            known[name]
            .criterion.build(replace(setup, options=self.config.options.get(name, {})))
            .to(self.backbone.device)
            for name in self.weights
        ]
        self.needs_hidden = any(criterion.needs_hidden for criterion in self.criteria)
        if any(criterion.pairwise for criterion in self.criteria):
            self.encoder = replace(self.encoder, by_length=False)
        self.shared = self.encoder.shared(self.devices, self.config.gradient_accumulation_steps)
        self.per_epoch = self.shared.steps(self.train)
        epochs = math.ceil(self.config.epochs * self.per_epoch)
        self.steps = min(epochs, self.config.max_steps or 10**9)
        self.mixer = self._new_mixer()

    def run(self, saver: Saver | None = None, state: State | None = None) -> Outcome:
        """Train, and keep the best iteration by the weighted sum of the criteria's metrics.

        It goes on from ``state``, one that ``saver`` got.
        """
        config, steps = self.config, self.steps
        trainable(self.module.learnable, False)
        self._set_entropy()
        groups = [
            (trainable(self.moving, config.train != "backbone"), config.module_lr),
            (trainable(self.backbone.learnable, self.trains_backbone), config.backbone_lr),
            (trainable(self.mixer.parameters(), True), config.lr),
        ]
        loop = Loop(
            stage="criteria",
            groups=groups,
            optimizer=self._whitened() if config.whiten else torch.optim.AdamW,
            objective=self._objective,
            steps=steps,
            schedule=self._schedule(steps, self.per_epoch),
            clip=config.clip,
            average=self._average(),
            validate=self.validate,
            validations=config.validations,
            hooks=(_Advance(self.mixer), *self.hooks),
            skip_nonfinite=config.skip_nonfinite,
            saver=saver,
            carried={MIXER: self.mixer, **{c.name: c for c in self.criteria}},
            split=self.shared.split,
            devices=self.devices,
        )
        stream = endless(lambda n: self.shared.batches(self.train, config.seed + 1000 + n))
        return loop.run(stream, state)

    def view(self, batch: Batch, removal: str | None = None) -> View:
        """What the criteria see of ``batch``; ``removal`` overrides the run's."""
        encoding = self.backbone.encode(batch, self.module, hidden=self.needs_hidden)
        return View(
            batch=batch,
            logits=encoding.logits,
            saliency=self.module(encoding.readings, batch.explainable, encoding.classes),
            hidden=encoding.hidden,
            rerun=lambda keep: self.backbone.rerun(batch, keep, removal or self.removal),
            gather=self.devices.rows,
            on=self.view,
            task=self.task,
        )

    def _objective(self, batch: Batch) -> Objective:
        preference = self.mixer.preference()
        asked = self.criteria
        if preference is not None:
            self.module.prefer(preference)
            asked = [criterion for criterion in asked if preference[criterion.name] > 0]
        view = self.view(batch)
        logged: dict[str, float] = {}
        losses: dict[str, Tensor] = {}
        if self.trains_backbone:
            losses[TASK] = self.task.loss(view.logits, view.labels)
            logged[TASK] = losses[TASK].item()
        failed: NotFiniteError | None = None
        for criterion in asked:
            criterion.inner_step(view)
            try:
                terms = check_terms(criterion, criterion(view), len(batch))
            except NotFiniteError as error:  # the others may wait for the passes that follow
                failed = failed or error
                continue
            losses[criterion.name] = terms.total().mean()
            logged |= {key: value.mean().item() for key, value in terms.items()}
        if self.devices.any(failed is not None):
            raise failed or ElsewhereError
        loss, gradients = self.mixer(losses)
        if gradients is not None:
            for hook in self.hooks:
                hook.on_gradients("criteria", gradients)
        return Objective(loss, logged)

    def _new_mixer(self) -> Mixer:
        """The task's loss is compared with the criteria where ``combine_on`` is all."""
        module = self.moving if self.config.train != "backbone" else []
        backbone = self.backbone.learnable if self.trains_backbone else []
        weights = {TASK: 1.0} if self.trains_backbone else {}
        weights |= self.weights
        if module and self.config.combine_on == "module":
            places: tuple[list[nn.Parameter], list[nn.Parameter]] = (module, backbone)
            measured = list(self.weights)
        else:
            places, measured = ([*module, *backbone], []), list(weights)
        mixer = Mixer(
            self.config.mixing,
            weights,
            measured,
            *places,
            steps=self.steps,
            devices=self.devices,
            seed=self.config.seed,
        )
        return mixer.to(self.backbone.device)

    @torch.no_grad()
    def validate(self) -> Validation:
        """Metrics of every criterion on the validation rows.

        The weighted sum of those that may select, signed so that higher is better, is the score
        (plus accuracy where the backbone trains). Rows on which a metric is undefined (NaN) do
        not count; a metric defined on none is not reported and adds nothing to the score. Tokens
        are removed as the task has it by default, which is how evaluation removes them, whatever
        training does. A module that knows preferences is judged by the uniform one.
        """
        if self.module.preferences:
            self.module.prefer()
        totals, defined = dict.fromkeys(self.weights, 0.0), dict.fromkeys(self.weights, 0)
        said = []
        items = self.encoder.ordered(self.valid[: self.config.validation_rows])
        for places, batch in self.encoder.own_batches(items, self.devices):
            view = self.view(batch, removal=self.task.removal)
            said.append((places, batch, view.logits))
            for criterion in self.criteria:
                values = criterion.metric(view)[: len(places)]
                totals[criterion.name] += values.nansum().item()
                defined[criterion.name] += int(values.isnan().logical_not().sum())
        found = self.devices.values([totals, defined])
        totals = {name: sum(own[name] for own, _ in found) for name in self.weights}
        defined = {name: sum(own[name] for _, own in found) for name in self.weights}
        means = {name: total / defined[name] for name, total in totals.items() if defined[name]}
        signed = [
            self.weights[c.name] * (means[c.name] if c.better == "higher" else -means[c.name])
            for c in self.criteria
            if c.selects and c.name in means
        ]
        score = sum(signed) if signed else None
        if self.trains_backbone:
            right = _share_right(self.backbone, items, iter(said), self.devices)
            means[self.task.measure] = right
            score = None if score is None else score + right
        return Validation(score, means)

    def _set_entropy(self) -> None:
        wanted = [c.start_entropy for c in self.criteria if c.start_entropy is not None]
        if wanted and self.config.train != "backbone":
            begin_at_entropy(self.backbone, self.module, self._first_rows(), wanted[0])

    def _first_rows(self) -> Iterator[Batch]:
        return self.encoder.batches(self.train[:FIRST_ROWS], self.config.seed)

    def _whitened(self) -> Callable[..., torch.optim.Optimizer]:
        found = whitening(self.backbone, self.module, self.moving, self._first_rows())
        return partial(WhitenedAdamW, whitened=found)

    def _average(self) -> float:
        if self.config.average is not None:
            return self.config.average
        return 0.0 if any(criterion.selects for criterion in self.criteria) else 0.5

    def _schedule(self, steps: int, per_epoch: int) -> Callable[[int], float]:
        if self.config.schedule == "linear":
            return linear_schedule(steps, warmup=0.02)
        if self.config.schedule == "step":
            return step_schedule(self.config.decay, 2 * per_epoch)
        return lambda step: 1.0

    def _new_student(self) -> Student:
        """A class of students, and study rows that stage 2 will not see."""
        if self.backbone.sharded:
            raise IvraError(
                "fsdp with a criterion that teaches students: they need the whole model; leave one "
                "of them out"
            )
        count = min(self.config.student_pool or self.config.student_rows, len(self.train) // 2)
        pool, self.train = self.train[:count], self.train[count:]
        return students_of(self.config, self.encoder, pool)
