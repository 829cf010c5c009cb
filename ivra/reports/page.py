"""What the HTML page holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ivra.reports.explained import ExplainedRow


@dataclass(frozen=True)
class Metric:
    """A column of the summary table; ``meaning`` is one sentence shown on hover."""

    key: str
    title: str
    better: Literal["higher", "lower"]
    meaning: str
    digits: int = 3


METRICS = (
    Metric("accuracy", "Accuracy", "higher", "Share of rows the model predicts correctly."),
    Metric(
        "comp",
        "COMP",
        "higher",
        "Comprehensiveness: the fall of confidence without the top tokens.",
    ),
    Metric(
        "suff", "SUFF", "lower", "Sufficiency: the fall of confidence with the top tokens alone."
    ),
    Metric(
        "sim",
        "SIM",
        "higher",
        "Simulation accuracy: how often a student taught with the explanations predicts what the "
        "model predicts.",
    ),
    Metric(
        "cons",
        "CONS",
        "higher",
        "Consistency: whether rows close to each other are explained alike.",
    ),
    Metric("plausibility", "AUC", "higher", "Plausibility: agreement with the marked evidence."),
)


@dataclass(frozen=True)
class Undefined:
    """A metric that has no value here, and why, in one sentence."""

    reason: str


@dataclass(frozen=True)
class SummaryRow:
    """A row of the summary table: one explainer.

    ``values`` are looked up by the key of a :class:`Metric`. A metric that is missing,
    :class:`Undefined` or not finite is shown as an en dash. ``note`` is small print.
    """

    name: str
    values: Mapping[str, float | Undefined]
    note: str = ""


class LogRecord(TypedDict):
    """One line of the training log: the mean loss terms of a split at a step."""

    step: int
    split: Literal["train", "valid"]
    terms: Mapping[str, float | None]


@dataclass(frozen=True)
class Page:
    """Everything on the page; what is empty is left out of it.

    ``date`` is printed as it is, so that the same input gives the same page. ``facts`` are
    further short pairs for the header (data set, seed, device). ``evidence`` says what the
    underlined tokens are. ``metrics`` that no summary row mentions get no column.
    """

    title: str
    run: str
    model: str
    criteria: tuple[str, ...]
    date: str
    facts: Mapping[str, str] = field(default_factory=dict)
    summary: tuple[SummaryRow, ...] = ()
    metrics: tuple[Metric, ...] = METRICS
    log: tuple[LogRecord, ...] = ()
    rows: tuple[ExplainedRow, ...] = ()
    evidence: str = "human rationale"
    config: Mapping[str, object] = field(default_factory=dict)
