"""How the losses of several criteria become one step.

A :class:`Combiner` turns the mean loss of every criterion into one scalar; the step follows its
gradient. What a combiner has learnt so far are buffers and parameters of its own, so that
``state_dict`` carries all of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ivra.errors import IvraError, unknown_name
from ivra.training.aggregation import AGGREGATORS, aggregated
from ivra.training.conflicts import Gradients, described, gradient_rows
from ivra.training.devices import ALONE, Devices

Normalise = Literal["auto", "none", "loss", "gradient"]
PREFERENCE = "preference"
COMBINERS = ("sum", "uncertainty", "constrained", PREFERENCE, *AGGREGATORS)
NORMALISATIONS: tuple[str, ...] = get_args(Normalise)
MEMORY = 0.9
"""How much of a running scale stays from step to step."""
LEAST_SCALE = 1e-8
LONGEST_LOG_VARIANCE = 4.0
ALONE_SHARE = 0.75
"""Of the steps of ``preference``: those for one criterion alone."""
TASK = "task"
"""What the task's own loss is called among the criteria."""


@dataclass(frozen=True)
class Mixing:
    """How criteria are mixed.

    Args:
        combine: of :data:`COMBINERS`.
        normalise: what the loss of a criterion is divided by: ``"none"``; the running mean of its
            size (``"loss"``) or of its gradient's norm (``"gradient"``); ``"auto"`` is
            ``"gradient"`` for ``preference`` and the aggregators of gradients, else ``"none"``.
        final_weights: of some criteria, reached at the last step in a straight line.
        bound: of some criteria, in the units of their loss (``constrained``).
        bound_lr: of the multipliers' step.
    """

    combine: str = "sum"
    normalise: Normalise = "auto"
    final_weights: Mapping[str, float] = field(default_factory=dict)
    bound: Mapping[str, float] = field(default_factory=dict)
    bound_lr: float = 0.05

    @property
    def scale(self) -> Normalise:
        """``normalise`` with ``"auto"`` settled."""
        if self.normalise != "auto":
            return self.normalise
        return "gradient" if self.combine in (PREFERENCE, *AGGREGATORS) else "none"


class Combined(NamedTuple):
    """What a step minimises, and the criteria's own gradients where there are several."""

    loss: Tensor
    gradients: Gradients | None


class Step(NamedTuple):
    """What the criteria ask for in a step.

    ``losses`` are means over rows; ``factors`` the weight of each over its scale; ``rows`` the
    gradients in ``parameters`` of those called ``measured``, unweighted; ``rest`` all other
    parameters that train.
    """

    losses: Mapping[str, Tensor]
    factors: Mapping[str, float]
    measured: Sequence[str]
    rows: Tensor
    parameters: Sequence[nn.Parameter]
    rest: Sequence[nn.Parameter]

    def total(self) -> Tensor:
        """The sum of factor times loss."""
        return torch.stack([self.factors[n] * loss for n, loss in self.losses.items()]).sum()


class Combiner(nn.Module, ABC):
    """One way of combining; subclasses are final."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """A scalar whose gradient the step follows."""


class WeightedSum(Combiner):
    """``sum_c f_c L_c``."""

    def forward(self, step: Step) -> Tensor:
        """The sum."""
        return step.total()


class Uncertainty(Combiner):
    """``sum_c (exp(-s_c) f_c L_c + s_c) / 2`` with ``s_c = log sigma_c^2`` learned.

    Kendall, Gal and Cipolla 2018 (arXiv:1705.07115), equation 7, for losses of at least 0. A loss
    below 0 would ask for an infinite weight, so ``s_c`` is kept within -4 and 4, that is weights
    between 0.009 and 27.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = tuple(names)
        self.log_variance = nn.Parameter(torch.zeros(len(names)))

    def forward(self, step: Step) -> Tensor:
        """The weighted sum, which also trains the weights."""
        with torch.no_grad():
            self.log_variance.clamp_(-LONGEST_LOG_VARIANCE, LONGEST_LOG_VARIANCE)
        losses = torch.stack([step.factors[n] * step.losses[n] for n in self._names])
        spread = self.log_variance.to(losses)
        return ((-spread).exp() * losses + spread).sum() / 2


class Constrained(Combiner):
    """``sum_free f_c L_c + sum_bound lambda_c f_c (L_c - b_c)`` with ``lambda_c >= 0`` ascending.

    Ferreira, Titov and Aziz 2024: after the loss is taken, ``lambda_c`` takes a step of RMSprop up
    the violation ``L_c - b_c`` of the same batch, and is cut off at 0. It starts at 1.
    """

    multipliers: Tensor
    square_average: Tensor
    ascents: Tensor

    def __init__(self, bound: Mapping[str, float], rate: float, devices: Devices = ALONE) -> None:
        super().__init__()
        self._devices = devices
        self._bound = dict(bound)
        self.register_buffer("multipliers", torch.ones(len(bound)))
        self.register_buffer("square_average", torch.zeros(len(bound)))
        self.register_buffer("ascents", torch.zeros(()))
        self._rate = rate

    def forward(self, step: Step) -> Tensor:
        """The Lagrangian at the multipliers before their step."""
        over = {n: step.losses[n] - bound for n, bound in self._bound.items()}
        held = dict(zip(over, self.multipliers.tolist(), strict=True))
        terms = [
            held[n] * step.factors[n] * over[n] if n in over else step.factors[n] * loss
            for n, loss in step.losses.items()
        ]
        self._ascend(_mean_over(self._devices, {n: value.item() for n, value in over.items()}))
        return torch.stack(terms).sum()

    def _ascend(self, violation: Mapping[str, float]) -> None:
        multipliers = nn.Parameter(self.multipliers)  # the same memory, as are the state's tensors
        multipliers.grad = multipliers.new_tensor(list(violation.values()))
        optimizer = torch.optim.RMSprop([multipliers], lr=self._rate, maximize=True)
        state = {"step": self.ascents, "square_avg": self.square_average}
        optimizer.state[multipliers] = state
        optimizer.step()
        self.multipliers.clamp_(min=0)


class Preferred(Combiner):
    """``n sum_c p_c f_c L_c`` over ``n`` criteria, ``p`` drawn for every step by
    :meth:`Mixer.preference`; the task's own loss, which nobody prefers, keeps its factor."""

    shares: Tensor

    def __init__(self, criteria: Sequence[str], seed: int = 0) -> None:
        super().__init__()
        self._criteria = tuple(criteria)
        self._seed = seed
        count = len(self._criteria)
        self.register_buffer("shares", torch.full((count,), 1 / count), persistent=False)

    def draw(self, step: int) -> dict[str, float]:
        """The preference of ``step``, the same for all its parts and in every process.

        With probability :data:`ALONE_SHARE` one criterion alone, each as often as the others; else
        uniform over the simplex, Dirichlet(1, ..., 1).
        """
        generator = np.random.default_rng((self._seed, step))
        count = len(self._criteria)
        if generator.random() < ALONE_SHARE:
            drawn = np.eye(count)[generator.integers(count)]
        else:
            drawn = generator.dirichlet(np.ones(count))
        self.shares.copy_(torch.from_numpy(drawn))
        return dict(zip(self._criteria, self.shares.tolist(), strict=True))

    def forward(self, step: Step) -> Tensor:
        """The sum under the preference that was drawn last."""
        count = len(self._criteria)
        shares = dict(zip(self._criteria, self.shares.tolist(), strict=True))
        factors = {n: f * count * shares.get(n, 1 / count) for n, f in step.factors.items()}
        return step._replace(factors=factors).total()


class Aggregated(Combiner):
    """Follows ``A(f_1 g_1, f_2 g_2, ...)``, ``A`` an aggregator of gradients from torchjd.

    ``g_c`` is the gradient of criterion ``c`` in the measured parameters; all others follow the
    sum. A criterion whose gradient is 0 asks for nothing and is left out of the step.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def forward(self, step: Step) -> Tensor:
        """The sum in value; its gradient is what the aggregator makes of the criteria's."""
        total = step.total()
        factors = step.rows.new_tensor([step.factors[name] for name in step.measured])
        flat = aggregated(self._name, factors[:, None] * step.rows)
        sizes = [parameter.numel() for parameter in step.parameters]
        slopes: list[Tensor] = list(flat.split(sizes))
        parameters = [*step.parameters, *step.rest]
        if step.rest:
            slopes += torch.autograd.grad(
                total, step.rest, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        along = [(p * slope.view_as(p)).sum() for p, slope in zip(parameters, slopes, strict=True)]
        moved = torch.stack(along).sum()
        return total.detach() + (moved - moved.detach())


class Mixer(nn.Module):
    """Weights, scales and a combiner: from the losses of a batch to one scalar.

    One loss alone is its weight times itself, whatever the combiner, at no further cost. Of
    several, the gradient of each in ``parameters`` is measured.

    Args:
        mixing: how.
        weights: of every loss by its name, in their order.
        measured: names of the losses whose gradients are compared, and aggregated.
        parameters: in which they are.
        rest: all other parameters that train.
        devices: the processes that train together; what is learnt of scales and bounds is over
            the batches of all of them, gradients are compared and aggregated by each for its own.
        steps: of the stage, until the final weights are reached; :meth:`advance` counts them.
        seed: of the preferences that are drawn.
    """

    scales: Tensor
    seen: Tensor
    step: Tensor

    def __init__(
        self,
        mixing: Mixing,
        weights: Mapping[str, float],
        measured: Sequence[str],
        parameters: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter] = (),
        steps: int = 1,
        devices: Devices = ALONE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.mixing = mixing
        self.weights = dict(weights)
        self.measured = tuple(measured)
        self.steps = steps
        self._parameters_of_criteria = (list(parameters), list(rest))
        self._devices = devices
        self.combiner = _combiner(mixing, self.weights, self.measured, devices, seed)
        self.register_buffer("scales", torch.zeros(len(self.weights)))
        self.register_buffer("seen", torch.zeros(len(self.weights), dtype=torch.long))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(self, losses: Mapping[str, Tensor]) -> Combined:
        """Combine the mean losses of a batch, called as the weights are.

        Criteria whose share of the preference is 0 may be missing.
        """
        parameters, rest = self._parameters_of_criteria
        rows, found = torch.zeros(0, 0), None
        measured = [name for name in self.measured if name in losses]
        if len(self.measured) > 1:
            rows = gradient_rows([losses[name] for name in measured], parameters)
            found = described(measured, rows)
        weights = self.weights_now()
        scales = self._scales(losses, found)
        factors = {name: weights[name] / scales[name] for name in losses}
        step = Step(losses, factors, measured, rows, parameters, rest)
        return Combined(self.combiner(step), found)

    def preference(self) -> dict[str, float] | None:
        """What the next batch shall be explained and judged by; ``None`` but for ``preference``."""
        return self.combiner.draw(int(self.step)) if isinstance(self.combiner, Preferred) else None

    def advance(self) -> None:
        """A step is over, of one batch or of several parts."""
        self.step += 1

    def weights_now(self) -> dict[str, float]:
        """``w + (w_final - w) t / (steps - 1)`` at step ``t = 0, 1, ...``, ``w`` without an end."""
        share = min(1.0, int(self.step) / max(1, self.steps - 1))
        final = self.mixing.final_weights
        return {n: w + (final[n] - w) * share if n in final else w for n, w in self.weights.items()}

    def _scales(self, losses: Mapping[str, Tensor], found: Gradients | None) -> Mapping[str, float]:
        """``s_t = 0.9 s_{t-1} + 0.1 x_t`` over ``1 - 0.9^t``, 1 where nothing is scaled.

        ``t`` counts the batches that had the loss.
        """
        scale = self.mixing.scale
        if scale == "none" or len(self.weights) < 2:
            return dict.fromkeys(losses, 1.0)
        if scale == "loss":
            sizes = {name: abs(loss.item()) for name, loss in losses.items()}
        else:
            sizes = found["norms"] if found is not None else {}
        sizes = _mean_over(self._devices, sizes)
        scales = dict.fromkeys(losses, 1.0)
        for place, name in enumerate(self.weights):
            if name in sizes:
                self.seen[place] += 1
                right = 1 - MEMORY ** int(self.seen[place])
                self.scales[place] = MEMORY * self.scales[place] + (1 - MEMORY) * sizes[name]
                scales[name] = max(float(self.scales[place]) / right, LEAST_SCALE)
        return scales


def _mean_over(devices: Devices, values: Mapping[str, float]) -> dict[str, float]:
    """The mean of each value over the processes."""
    found = devices.values(dict(values))
    return {name: fmean(own[name] for own in found) for name in values}


def _combiner(
    mixing: Mixing,
    weights: Mapping[str, float],
    measured: Sequence[str],
    devices: Devices,
    seed: int,
) -> Combiner:
    if mixing.combine not in COMBINERS:
        raise unknown_name("combiner", mixing.combine, list(COMBINERS))
    if mixing.combine == "uncertainty" and len(weights) > 1:
        return Uncertainty(list(weights))
    if mixing.combine == "constrained" and len(weights) > 1:
        return Constrained(mixing.bound, mixing.bound_lr, devices)
    criteria = [name for name in weights if name != TASK]
    if mixing.combine == PREFERENCE and len(criteria) > 1:
        return Preferred(criteria, seed)
    if mixing.combine in AGGREGATORS and len(measured) > 1:
        return Aggregated(mixing.combine)
    return WeightedSum()


def check_mixing(mixing: Mixing, criteria: Sequence[str], task: bool) -> None:
    """Raise :class:`IvraError` if ``criteria`` cannot be mixed so.

    Args:
        task: whether the task's own loss is minimised too.
    """
    if mixing.combine not in COMBINERS:
        raise unknown_name("combiner", mixing.combine, list(COMBINERS))
    for what, values in (("bound", mixing.bound), ("final weight", mixing.final_weights)):
        for name in values:
            if name not in criteria:
                raise unknown_name(f"criterion with a {what} (not in criteria)", name, [*criteria])
    if mixing.bound and mixing.combine != "constrained":
        raise IvraError(
            f"combine is {mixing.combine}, which has no use for a bound: expected constrained, or "
            "no bound"
        )
    if mixing.combine == "constrained" and len(criteria) + task > 1:
        if not mixing.bound:
            raise IvraError(
                "combine is constrained, but no criterion has a bound: expected one, as in "
                f"--bound {criteria[-1]}=0.05"
            )
        if set(mixing.bound) >= set(criteria) and not task:
            raise IvraError(
                "every criterion has a bound, so that there is nothing to minimise: leave one of "
                f"{', '.join(criteria)} without"
            )
