"""The figures that a table can show, and what has to be measured for each."""

from collections.abc import Sequence

from ivra.errors import IvraError, unknown_name
from ivra.losses import parse_criteria
from ivra.reports import METRICS, Metric

_FURTHER = (
    Metric("norm_comp", "norm. COMP", "higher", "Comprehensiveness over the null difference."),
    Metric("norm_suff", "norm. SUFF", "higher", "Sufficiency over the null difference."),
    Metric("important", "Important", None, "Share of tokens above thresholds of their score."),
    Metric("macro_f1", "Macro F1", "higher", "Mean over classes of the model's own F1."),
    Metric("step_seconds", "s a step", "lower", "Seconds of a training step.", digits=4),
    Metric("explain_seconds", "s a row", "lower", "Seconds of an explanation.", digits=5),
)

COLUMNS: dict[str, Metric] = {metric.key: metric for metric in (*_FURTHER, *reversed(METRICS))}
"""Figures by name. (Reversed, as a figure's first entry on the page is its main one.)"""

OF_MODEL = ("accuracy", "macro_f1")
"""Figures of the model itself, the same for all explainers."""
OF_CRITERION = {
    "comp": "comp",
    "suff": "suff",
    "sim": "sim",
    "cons": "cons",
    "plaus": "plausibility",
}
_AOPC = ("comp", "suff", "norm_comp", "norm_suff", "important")
_ENTROPY = ("entropy", "entropy_normalised", "effective_tokens", "support")


def columns_of(names: Sequence[str], criteria: Sequence[str]) -> tuple[Metric, ...]:
    """The figures called ``names``, or without any the ones that ``criteria`` are judged by.

    Raises:
        IvraError: an unknown figure, or criteria of which none has a figure of its own.
    """
    for name in names:
        if name not in COLUMNS:
            raise unknown_name("column", name, list(COLUMNS))
    if names:
        return tuple(COLUMNS[name] for name in names)
    known = [known.name for text in criteria for known in parse_criteria(text)]
    found = dict.fromkeys(OF_CRITERION[name] for name in known if name in OF_CRITERION)
    if not found:
        raise IvraError(
            f"the criteria {', '.join(criteria) or '(none)'} have no figure of their own: name "
            f"columns, of {', '.join(COLUMNS)}"
        )
    return tuple(COLUMNS[name] for name in found)


def metrics_of(columns: Sequence[Metric]) -> tuple[str, ...]:
    """What an evaluation has to measure for ``columns``."""
    return tuple(dict.fromkeys(_measured(column.key) for column in columns))


def _measured(key: str) -> str:
    if key in _AOPC:
        return "aopc"
    if key in _ENTROPY:
        return "entropy"
    if key in ("sim", "cons"):
        return key
    if key in (*OF_MODEL, "step_seconds", "explain_seconds"):
        return "accuracy"  # cheap, and an evaluation measures something
    return "plausibility"
