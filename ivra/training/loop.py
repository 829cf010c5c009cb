"""The one training loop: stage 1, stage 2 and the students of an evaluation run through it."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ivra.data import Batch
from ivra.errors import ElsewhereError, NotFiniteError
from ivra.training.conflicts import Gradients
from ivra.training.devices import ALONE, Devices
from ivra.training.keeping import BestKeeper, Validation
from ivra.training.packing import pack, unpack
from ivra.training.randomness import random_state, set_random_state
from ivra.training.state import (
    MISFITS,
    Mean,
    State,
    copy_into,
    load_optimizer_state,
    misfit,
    optimizer_state,
)
from ivra.training.stream import Endless
from ivra.training.whitening import WhitenedAdamW

NAMED = 8
"""Rows of a batch that an error names."""


class Objective(NamedTuple):
    """What a step minimises, and the named terms (means over rows) that are logged."""

    loss: Tensor
    terms: dict[str, float]


class Hooks:
    """Called as the loop goes; all empty, override what is wanted."""

    def on_begin(self, stage: str, steps: int) -> None:
        """Before the first step of a stage."""

    def on_gradients(self, stage: str, gradients: Gradients) -> None:
        """After each batch of a step with several criteria, before that step's ``on_step``."""

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        """After a step (counted from 1)."""

    def on_skip(self, stage: str, step: int, reason: str) -> None:
        """In the place of ``on_step``, where a step was left out (``skip_nonfinite``)."""

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        """After a validation; ``best`` if it is the best so far, whose weights will be kept."""

    def on_end(self, stage: str, interrupted: bool) -> None:
        """After the last step, or an interrupt."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: steps done, the step kept, its validation, whether it was cut short.

    ``skipped`` of the steps were left out because something in them was not finite.
    """

    steps: int
    best_step: int
    best: Validation | None
    interrupted: bool
    skipped: int = 0


@runtime_checkable
class Saver(Protocol):
    """Keeps the state of a loop."""

    def due(self, step: int) -> bool:
        """Whether to save after ``step``, at which nothing was validated."""
        ...

    def save(self, stage: str, step: int, state: State) -> None:
        """Keep ``state``, taken after ``step``."""
        ...


def whole(batch: Batch) -> Sequence[Batch]:
    """A step's batch in one part."""
    return (batch,)


@dataclass
class Loop:
    """AdamW with a learning-rate schedule, gradient clipping and the best iteration kept.

    ``groups`` pairs parameters with their learning rates. ``objective(batch)`` computes what is
    minimised. ``validate()`` runs before the first step and ``validations`` times after, evenly
    spread, and the weights of the best are restored at the end; without it the last weights
    stay. An ``average`` share of the steps, those at the end, gives way to the mean of its weights:
    it stands in the place of the last ones and is validated as they would be. An interrupt
    (Ctrl-C) ends the loop as if its time were up, but for the mean, which is not taken.

    ``optimizer`` makes AdamW, or one like it, of the groups and ``weight_decay``.

    ``split`` cuts the batch of a step into parts that go through ``objective`` one after another;
    each counts by its share of the rows. A loss or a gradient that is not finite raises
    :class:`~ivra.errors.NotFiniteError`, with the step and the rows; ``skip_nonfinite`` leaves
    such a step out instead. ``saver`` gets the state of the loop after every validation and
    whenever it is due; what is ``carried`` is saved with it. Of several ``devices`` each process
    has its own part of a batch by ``split``; the gradients are those of the whole. An interrupt is
    not caught then.
    """

    stage: str
    groups: list[tuple[list[nn.Parameter], float]]
    objective: Callable[[Batch], Objective]
    steps: int
    schedule: Callable[[int], float] = field(default=lambda step: 1.0)
    clip: float = 1.0
    weight_decay: float = 0.0
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    average: float = 0.0
    validate: Callable[[], Validation] | None = None
    validations: int = 10
    hooks: tuple[Hooks, ...] = ()
    split: Callable[[Batch], Sequence[Batch]] = whole
    skip_nonfinite: bool = False
    saver: Saver | None = None
    carried: Mapping[str, nn.Module] = field(default_factory=dict)
    devices: Devices = ALONE

    def run(self, batches: Endless[Batch], state: State | None = None) -> Outcome:
        """Train on ``batches`` for ``steps`` steps, those before ``state`` counted in.

        Raises:
            IvraError: ``state`` is not that of such a loop.
            NotFiniteError: see above.
        """
        course = _Course(self, batches)
        interrupted = False
        try:
            self._tell(lambda hook: hook.on_begin(self.stage, self.steps))
            if state is None:
                self._validate(course)
            else:
                _take_up(course, state)
            for batch in itertools.islice(batches, self.steps - course.step):
                self._step(course, batch)
        except KeyboardInterrupt:
            if self.devices.count > 1:  # the others may be waiting for this one
                raise
            interrupted = True
        finally:
            interrupted = course.keeper.restore_in_spite() or interrupted
        try:
            self._tell(lambda hook: hook.on_end(self.stage, interrupted))
        except KeyboardInterrupt:
            interrupted = True
        keeper = course.keeper
        kept = keeper.step if keeper.best is not None else course.step
        return Outcome(course.step, kept, keeper.best, interrupted, course.skipped)

    def _step(self, course: "_Course", batch: Batch) -> None:
        step, skipped, terms = course.step + 1, None, {}
        try:
            terms = self._learn(batch, course.optimizer)
        except NotFiniteError as error:
            reason = f"{self.stage} step {step}, {error}"
            if not self.skip_nonfinite:
                raise NotFiniteError(
                    f"{reason}; lower the learning rate, or leave such steps out with "
                    "skip_nonfinite: what was saved before is kept"
                ) from error
            skipped = reason
            course.skipped += 1
        course.step = step
        course.set_rates()
        if step > self.steps - round(self.steps * self.average):
            course.mean.add()
        if step == self.steps:
            course.mean.take()
        for hook in self.hooks:
            if skipped is None:
                hook.on_step(self.stage, step, terms)
            else:
                hook.on_skip(self.stage, step, skipped)
        if step in self._validation_steps():
            self._validate(course)
        elif self.saver is not None and self.saver.due(step):
            self._save(course, self.saver)

    def _learn(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One step of the optimiser; the terms, means over the rows of the batch."""
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        logged, failed = {}, None
        try:
            logged = self._slopes(batch)
        except ElsewhereError:
            failed = ""
        except NotFiniteError as error:
            failed = str(error)
        found = self.devices.values([failed, logged])
        wrong = [text for text, _ in found if text is not None]
        if wrong:
            raise NotFiniteError(next(filter(None, wrong)))
        self.devices.add_up(parameters)
        if isinstance(optimizer, WhitenedAdamW):
            optimizer.whiten_gradients()
        norm = nn.utils.clip_grad_norm_(parameters, self.clip)
        if not math.isfinite(norm.item()):
            raise NotFiniteError(f"{_named(batch)}: the gradient is {norm.item()}")
        optimizer.step()
        names = dict.fromkeys(name for _, terms in found for name in terms)
        return {name: sum(terms.get(name, 0.0) for _, terms in found) for name in names}

    def _slopes(self, batch: Batch) -> dict[str, float]:
        """The gradients of this process's part of the rows, and its part of the terms."""
        logged: dict[str, float] = {}
        for part in self.split(batch):
            try:
                loss, terms = self.objective(part)
            except ElsewhereError:
                raise
            except NotFiniteError as error:
                row = "" if error.row is None else f" in row {part.items[error.row].row.id}"
                raise NotFiniteError(f"{_named(part)}: {error.what}{row}") from error
            finite = math.isfinite(loss.item())
            if self.devices.any(not finite):  # or the backward passes of the others would wait
                what = f"{_named(part)}: the loss is {loss.item()}"
                raise ElsewhereError if finite else NotFiniteError(what)
            share = len(part) / len(batch)
            (loss * share).backward()
            for name, value in terms.items():
                logged[name] = logged.get(name, 0.0) + share * value
        return logged

    def _validation_steps(self) -> set[int]:
        count = min(self.validations, self.steps)
        return {round(self.steps * (i + 1) / count) for i in range(count)}

    def _validate(self, course: "_Course") -> None:
        if self.validate is not None:
            validation = self.validate()
            best = course.keeper.offer(course.step, validation)
            self._tell(lambda hook: hook.on_validation(self.stage, course.step, validation, best))
        if self.saver is not None:
            self._save(course, self.saver)

    def _save(self, course: "_Course", saver: Saver) -> None:
        """Hand the state over; whatever that draws, the steps to come draw as if it were not."""
        state = course.state_dict()
        saver.save(self.stage, course.step, state)
        course.draw_from(state)

    def _tell(self, call: Callable[[Hooks], None]) -> None:
        for hook in self.hooks:
            call(hook)


class _Course:
    """All of a loop that changes as it goes."""

    def __init__(self, loop: Loop, batches: Endless[Batch]) -> None:
        self.parameters = [p for parameters, _ in loop.groups for p in parameters]
        self.optimizer = loop.optimizer(
            [{"params": parameters, "lr": rate} for parameters, rate in loop.groups if parameters],
            weight_decay=loop.weight_decay,
        )
        self.keeper, self.mean = BestKeeper(self.parameters), Mean(self.parameters)
        self.batches = batches
        self.step = self.skipped = 0
        self._loop = loop
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self.set_rates()

    def set_rates(self) -> None:
        """The learning rates of the step that is next."""
        factor = self._loop.schedule(self.step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def state_dict(self) -> State:
        """Everything that the steps to come depend on, the random number generators included."""
        return {
            "step": self.step,
            "skipped": self.skipped,
            "parameters": [p.detach() for p in self.parameters],
            "optimizer": optimizer_state(self.optimizer),
            "keeper": self.keeper.state_dict(),
            "mean": self.mean.state_dict(),
            "batches": self.batches.state_dict(),
            "own": self._own_state(),
        }

    def _own_state(self) -> list[State]:
        """What differs between processes, of each of them."""
        carried = {name: part.state_dict() for name, part in self._loop.carried.items()}
        own = {"carried": carried, "random": random_state(self.parameters[0].device)}
        if self._loop.devices.count == 1:
            return [own]
        facts, tensors = pack(own)
        texts = self._loop.devices.values(facts)
        found = self._loop.devices.tensors(tensors)
        return [unpack(text, each) for text, each in zip(texts, found, strict=True)]

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state``, one of a loop like this."""
        self.step, self.skipped = state["step"], state["skipped"]
        if not 0 <= self.step <= self._loop.steps:
            raise ValueError(f"step {self.step} of {self._loop.steps}")
        self.set_rates()
        copy_into(self.parameters, state["parameters"])
        load_optimizer_state(self.optimizer, state["optimizer"])
        self.keeper.load_state_dict(state["keeper"])
        self.mean.load_state_dict(state["mean"])
        self.batches.load_state_dict(state["batches"])
        own = state["own"][self._loop.devices.index]
        for name, part in self._loop.carried.items():
            part.load_state_dict(own["carried"][name])
        self.draw_from(state)

    def draw_from(self, state: State) -> None:
        """Set the random number generators to where they stood in ``state``."""
        own = state["own"][self._loop.devices.index]
        set_random_state(own["random"], self.parameters[0].device)


def _take_up(course: _Course, state: State) -> None:
    try:
        course.load_state_dict(state)
    except MISFITS as error:
        raise misfit(error) from error


def _named(batch: Batch) -> str:
    """``batch of rows a, b, c and 5 more``."""
    ids = [item.row.id for item in batch.items]
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"batch of rows {', '.join(ids[:NAMED])}{more}"


def trainable(parameters: Iterable[nn.Parameter], wanted: bool) -> list[nn.Parameter]:
    """Switch the gradient of all parameters on or off; the list of those that now have one."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(wanted)
    return parameters if wanted else []


def linear_schedule(steps: int, warmup: float = 0.1) -> Callable[[int], float]:
    """Up to 1 over the first ``warmup`` share of ``steps``, then down to 0 in a straight line."""
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    return factor


def step_schedule(decay: float, every: int) -> Callable[[int], float]:
    """``decay`` to the power of the number of full ``every`` steps done."""
    return lambda step: decay ** (step // every)
