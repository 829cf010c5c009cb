"""What the HTML page holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ivra.reports.explained import ExplainedRow


@dataclass(frozen=True)
class Metric:
    """A column of the summary table; ``meaning`` is one sentence shown on hover.

    ``better`` is ``None`` where neither way is. Metrics of one ``group`` stand in one table,
    that of the group ``""`` first.
    """

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    meaning: str
    digits: int = 3
    group: str = ""


TOKENS = "Agreement with the marked evidence, on tokens"
WORDS = "Agreement with the marked evidence, on words"
SHAPE = "How concentrated the explanations are"


def _agreement(group: str, unit: str, keys: tuple[str, ...]) -> tuple[Metric, ...]:
    columns = (
        ("AUC", f"Area under the ROC curve of the scores against the marked {unit}s."),
        ("AP", f"Average precision of the scores against the marked {unit}s."),
        ("R@n", f"Share of the n marked {unit}s among the n highest scores."),
        ("F1", f"F1 of the top {unit}s, as many as humans mark on average, averaged over rows."),
        ("IoU F1", "F1 of spans, found where half of intersection and union overlaps."),
    )
    return tuple(
        Metric(key, title, "higher", meaning, group=group)
        for key, (title, meaning) in zip(keys, columns, strict=True)
    )


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
    *_agreement(
        TOKENS,
        "token",
        ("plausibility", "average_precision", "recall_at_marked", "token_f1", "iou_f1"),
    ),
    *_agreement(
        WORDS,
        "word",
        (
            "word_auc",
            "word_average_precision",
            "word_recall_at_marked",
            "word_f1",
            "word_iou_f1",
        ),
    ),
    Metric("entropy", "Entropy", None, "Entropy of the saliency in nats.", group=SHAPE),
    Metric(
        "entropy_normalised", "Share", None, "Entropy over that of a uniform saliency.", group=SHAPE
    ),
    Metric(
        "effective_tokens",
        "Tokens",
        None,
        "Tokens of a uniform saliency of the same entropy.",
        digits=1,
        group=SHAPE,
    ),
    Metric("support", "Support", None, "Tokens of saliency above 0.", digits=1, group=SHAPE),
)


@dataclass(frozen=True)
class Undefined:
    """A metric that has no value here, and why, in one sentence; without a reason, a metric that
    does not apply, which is a dash without small print."""

    reason: str = ""


@dataclass(frozen=True)
class SummaryRow:
    """A row of the summary table: one explainer.

    ``values`` are looked up by the key of a :class:`Metric`. A metric that is missing,
    :class:`Undefined` or not finite is shown as an en dash. ``intervals`` hold the lower and
    upper end of 95 % intervals, of the same keys. ``note`` is small print.
    """

    name: str
    values: Mapping[str, float | Undefined]
    note: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


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
