"""The contract that every criterion is held to, ours and any plugin's."""

from ivra.contract.check import CLAUSES, Verdict, check_criterion, judge
from ivra.contract.trial import Trial

__all__ = ["CLAUSES", "Trial", "Verdict", "check_criterion", "judge"]
