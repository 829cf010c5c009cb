"""The contract: its clauses by name, and the verdicts on a criterion."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ivra.contract import gradients, values
from ivra.contract.trial import Broken, Make, NotApplicable, Trial
from ivra.errors import unknown_name

Clause = Callable[[Trial], str | None]
"""Raises what does not hold; may say under which conditions it does."""

CLAUSES: dict[str, Clause] = {
    "shape": values.shape,
    "finite": values.finite,
    "metric": values.metric,
    "graph": gradients.graph,
    "derivative": gradients.derivative,
    "repeats": values.repeats,
    "inputs": values.inputs,
    "one by one": values.one_by_one,
    "row order": values.row_order,
    "padding side": values.padding_side,
    "padding amount": values.padding_amount,
    "pad is a word": values.pad_is_word,
    "removal": values.removal,
    "equal saliency": values.equal_saliency,
    "one token": values.one_token,
    "no rows": values.no_rows,
    "no annotation": values.no_annotation,
    "half precision": values.half_precision,
}
"""What every criterion promises. A clause's docstring is the sentence that holds."""


class Verdict(NamedTuple):
    """What came of one clause: ``detail`` is the sentence that holds, what was expected and what
    came, or why the clause says nothing about this criterion."""

    clause: str
    outcome: Literal["pass", "fail", "not applicable"]
    detail: str


def judge(clause: str, trial: Trial) -> Verdict:
    """The verdict of one clause of :data:`CLAUSES`."""
    try:
        under = CLAUSES[clause](trial)
    except NotApplicable as reason:
        return Verdict(clause, "not applicable", str(reason))
    except Broken as error:
        return Verdict(clause, "fail", str(error))
    except Exception as error:  # noqa: BLE001 - a plugin may fail in any way it likes
        said = " ".join(str(error).split())
        return Verdict(clause, "fail", f"expected values, got {type(error).__name__}: {said}")
    return Verdict(clause, "pass", f"{CLAUSES[clause].__doc__}{under or ''}")


def check_criterion(
    make: Make,
    clauses: Sequence[str] = tuple(CLAUSES),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Verdict]:
    """Hold a criterion to the contract.

    It is shown a stand-in model of float64 numbers, and where padding and removal are at stake
    a tiny ELECTRA and GPT-2 with random weights. A few seconds, no download.

    Args:
        make: builds it from a :class:`~ivra.losses.Setup`: ``MyCriterion.build``, or a function
            that hands ``setup.options`` on.
        clauses: of :data:`CLAUSES`; all by default.
        options: what a user would set of it.

    Raises:
        IvraError: an unknown clause.
    """
    for clause in clauses:
        if clause not in CLAUSES:
            raise unknown_name("clause", clause, list(CLAUSES))
    return [judge(clause, Trial(make, options=options)) for clause in clauses]
