"""The one training loop: stage 1, stage 2 and the students of an evaluation run through it."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ivra.data import Batch
from ivra.errors import IvraError


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

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        """After a step (counted from 1)."""

    def on_validation(self, stage: str, step: int, validation: Validation, best: bool) -> None:
        """After a validation; ``best`` if it is the best so far, whose weights will be kept."""

    def on_end(self, stage: str, interrupted: bool) -> None:
        """After the last step, or an interrupt."""


@dataclass(frozen=True)
class Outcome:
    """How a stage ended: steps done, the step kept, its validation, whether it was cut short."""

    steps: int
    best_step: int
    best: Validation | None
    interrupted: bool


@dataclass
class Loop:
    """AdamW with a learning-rate schedule, gradient clipping and the best iteration kept.

    ``groups`` pairs parameters with their learning rates. ``objective(batch)`` computes what is
    minimised. ``validate()`` runs before the first step and ``validations`` times after, evenly
    spread, and the weights of the best are restored at the end; without it the last weights
    stay. An ``average`` share of the steps, those at the end, gives way to the mean of its weights:
    it stands in the place of the last ones and is validated as they would be. An interrupt
    (Ctrl-C) ends the loop as if its time were up, but for the mean, which is not taken.
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

    def run(self, batches: Iterable[Batch]) -> Outcome:
        """Train on ``batches`` (an endless stream) for ``steps`` steps."""
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in self.groups if parameters],
            weight_decay=self.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        parameters = [p for parameters, _ in self.groups for p in parameters]
        keeper, mean = _BestKeeper(parameters), _Mean(parameters)
        first = self.steps - round(self.steps * self.average)
        interrupted, done = False, 0
        try:
            self._tell(lambda hook: hook.on_begin(self.stage, self.steps))
            self._validate(0, keeper)
            for step, batch in enumerate(itertools.islice(batches, self.steps), start=1):
                terms = self._step(step, batch, optimizer)
                done = step
                scheduler.step()
                if step > first:
                    mean.add()
                if step == self.steps:
                    mean.take()
                for hook in self.hooks:
                    hook.on_step(self.stage, step, terms)
                if step in self._validation_steps():
                    self._validate(step, keeper)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            interrupted = keeper.restore_in_spite() or interrupted
        try:
            self._tell(lambda hook: hook.on_end(self.stage, interrupted))
        except KeyboardInterrupt:
            interrupted = True
        kept = keeper.step if keeper.best is not None else done
        return Outcome(done, kept, keeper.best, interrupted)

    def _step(self, step: int, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        optimizer.zero_grad(set_to_none=True)
        loss, terms = self.objective(batch)
        if not math.isfinite(loss.item()):
            raise IvraError(
                f"{self.stage} step {step}: the loss is {loss.item()}; lower the learning rate, "
                "the last good weights are kept"
            )
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip)
        if not math.isfinite(norm.item()):
            raise IvraError(
                f"{self.stage} step {step}: the gradient is {norm.item()}; lower the learning "
                "rate, the last good weights are kept"
            )
        optimizer.step()
        return terms

    def _validation_steps(self) -> set[int]:
        count = min(self.validations, self.steps)
        return {round(self.steps * (i + 1) / count) for i in range(count)}

    def _validate(self, step: int, keeper: "_BestKeeper") -> None:
        if self.validate is None:
            return
        validation = self.validate()
        best = keeper.offer(step, validation)
        self._tell(lambda hook: hook.on_validation(self.stage, step, validation, best))

    def _tell(self, call: Callable[[Hooks], None]) -> None:
        for hook in self.hooks:
            call(hook)


class _Mean:
    """The mean of the parameters over the steps that it was shown (Polyak and Juditsky 1992)."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters = parameters
        self._means: list[Tensor] = []
        self._count = 0

    @torch.no_grad()
    def add(self) -> None:
        self._count += 1
        if not self._means:
            self._means = [p.detach().clone() for p in self._parameters]
        for mean, parameter in zip(self._means, self._parameters, strict=True):
            mean.lerp_(parameter, 1 / self._count)

    @torch.no_grad()
    def take(self) -> None:
        """Put the mean in the place of the parameters; nothing if it was shown no step."""
        if self._means:
            for mean, parameter in zip(self._means, self._parameters, strict=True):
                parameter.copy_(mean)


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


def _better(score: float | None, best: float | None) -> bool:
    """Whether ``score`` takes the place of ``best``; no score and NaN never hold theirs."""
    return score is None or best is None or math.isnan(best) or score > best


def trainable(parameters: Iterable[nn.Parameter], wanted: bool) -> list[nn.Parameter]:
    """Switch the gradient of all parameters on or off; the list of those that now have one."""
    parameters = list(parameters)
    for parameter in parameters:
        parameter.requires_grad_(wanted)
    return parameters if wanted else []


def endless(epoch: Callable[[int], Iterator[Batch]]) -> Iterator[Batch]:
    """The batches of epoch 0, 1, 2, ... one after another; ``epoch(n)`` shuffles by ``n``."""
    for number in itertools.count():
        yield from epoch(number)


def linear_schedule(steps: int, warmup: float = 0.1) -> Callable[[int], float]:
    """Up to 1 over the first ``warmup`` share of ``steps``, then down to 0 in a straight line."""
    rise = max(1, round(steps * warmup))

    def factor(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    return factor


def step_schedule(decay: float, every: int) -> Callable[[int], float]:
    """``decay`` to the power of the number of full ``every`` steps done."""
    return lambda step: decay ** (step // every)
