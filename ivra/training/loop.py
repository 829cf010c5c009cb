"""The one training loop: stage 1, stage 2 and the students of an evaluation run through it."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ivra.data import Batch
from ivra.errors import NotFiniteError
from ivra.training.conflicts import Gradients
from ivra.training.randomness import random_state, set_random_state
from ivra.training.state import (
    MISFITS,
    Mean,
    State,
    copies_of,
    copy_into,
    load_optimizer_state,
    misfit,
    optimizer_state,
)
from ivra.training.stream import Endless

NAMED = 8
"""Rows of a batch that an error names."""


class Objective(NamedTuple):
    """What a step minimises, and the named terms (means over rows) that are logged."""

    loss: Tensor
    terms: dict[str, float]


class Validation(NamedTuple):
    """A score (higher is better) by which the best iteration is kept, and what is logged.

    ``None`` makes no claim: the latest iteration is kept.
    """

    score: float | None
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

    ``split`` cuts the batch of a step into parts that go through ``objective`` one after another;
    each counts by its share of the rows. A loss or a gradient that is not finite raises
    :class:`~ivra.errors.NotFiniteError`, with the step and the rows; ``skip_nonfinite`` leaves
    such a step out instead. ``saver`` gets the state of the loop after every validation and
    whenever it is due; what is ``carried`` is saved with it.
    """

    stage: str
    groups: list[tuple[list[nn.Parameter], float]]
    objective: Callable[[Batch], Objective]
    steps: int
    schedule: Callable[[int], float] = field(default=lambda step: 1.0)
    clip: float = 1.0
    weight_decay: float = 0.0
    average: float = 0.0
    validate: Callable[[], Validation] | None = None
    validations: int = 10
    hooks: tuple[Hooks, ...] = ()
    split: Callable[[Batch], Sequence[Batch]] = whole
    skip_nonfinite: bool = False
    saver: Saver | None = None
    carried: Mapping[str, nn.Module] = field(default_factory=dict)

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
            self.saver.save(self.stage, step, course.state_dict())

    def _learn(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """One step of the optimiser; the terms, means over the rows of the batch."""
        optimizer.zero_grad(set_to_none=True)
        logged: dict[str, float] = {}
        for part in self.split(batch):
            try:
                loss, terms = self.objective(part)
            except NotFiniteError as error:
                row = "" if error.row is None else f" in row {part.items[error.row].row.id}"
                raise NotFiniteError(f"{_named(part)}: {error.what}{row}") from error
            if not math.isfinite(loss.item()):
                raise NotFiniteError(f"{_named(part)}: the loss is {loss.item()}")
            share = len(part) / len(batch)
            (loss * share).backward()
            for name, value in terms.items():
                logged[name] = logged.get(name, 0.0) + share * value
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip)
        if not math.isfinite(norm.item()):
            raise NotFiniteError(f"{_named(batch)}: the gradient is {norm.item()}")
        optimizer.step()
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
            self.saver.save(self.stage, course.step, course.state_dict())

    def _tell(self, call: Callable[[Hooks], None]) -> None:
        for hook in self.hooks:
            call(hook)


class _Course:
    """All of a loop that changes as it goes."""

    def __init__(self, loop: Loop, batches: Endless[Batch]) -> None:
        self.parameters = [p for parameters, _ in loop.groups for p in parameters]
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in loop.groups if parameters],
            weight_decay=loop.weight_decay,
        )
        self.keeper, self.mean = _BestKeeper(self.parameters), Mean(self.parameters)
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
            "carried": {name: part.state_dict() for name, part in self._loop.carried.items()},
            "random": random_state(self.parameters[0].device),
        }

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
        for name, part in self._loop.carried.items():
            part.load_state_dict(state["carried"][name])
        set_random_state(state["random"], self.parameters[0].device)


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


class _BestKeeper:
    """Holds a copy of the parameters at the best validation."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._copies: list[Tensor] = []
        self.best: Validation | None = None
        self.step = 0

    def offer(self, step: int, validation: Validation) -> bool:
        if self.best is not None and not _better(validation.score, self.best.score):
            return False
        self.best, self.step = validation, step
        self._copies = [p.detach().clone() for p in self._parameters]
        return True

    def restore_in_spite(self) -> bool:
        """Restore, and once more if an interrupt falls into it; whether one did."""
        try:
            self.restore()
        except KeyboardInterrupt:
            self.restore()
            return True
        return False

    def restore(self) -> None:
        if self.best is None:
            return
        with torch.no_grad():
            for parameter, copy in zip(self._parameters, self._copies, strict=True):
                parameter.copy_(copy)

    def state_dict(self) -> State:
        best = None if self.best is None else {"score": self.best.score, "terms": self.best.terms}
        return {"step": self.step, "best": best, "copies": list(self._copies)}

    def load_state_dict(self, state: State) -> None:
        self._copies = copies_of(state["copies"], self._parameters)
        best = state["best"]
        self.step = state["step"]
        self.best = None if best is None else Validation(best["score"], best["terms"])


def _better(score: float | None, best: float | None) -> bool:
    """Whether ``score`` takes the place of ``best``; no score and NaN never hold theirs."""
    return score is None or best is None or math.isnan(best) or score > best


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
