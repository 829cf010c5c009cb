"""ivra trains a transformer's attention until it gives good explanations.

>>> import ivra
>>> run = ivra.train(ivra.TrainConfig(criteria="sim,suff"))    # doctest: +SKIP
>>> figures = ivra.evaluate(run)                               # doctest: +SKIP
>>> rows = ivra.explain(run, ["the soup was not good ."])      # doctest: +SKIP

``load`` reads a finished run back. A criterion of your own is a subclass of ``Criterion`` that
turns a ``View`` into ``Terms``; an explainer of your own is a subclass of ``Explainer``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ivra.version import __version__

if TYPE_CHECKING:
    from ivra.api import compare, explain, export_eraser, write_comparison, write_report
    from ivra.errors import IvraError
    from ivra.evaluation import EvalConfig, evaluate
    from ivra.explainers import Explainer
    from ivra.losses import Criterion, Terms, View
    from ivra.training import Hooks, Run, TrainConfig, resume, train
    from ivra.training import load_run as load

__all__ = [
    "Criterion",
    "EvalConfig",
    "Explainer",
    "Hooks",
    "IvraError",
    "Run",
    "Terms",
    "TrainConfig",
    "View",
    "__version__",
    "compare",
    "evaluate",
    "explain",
    "export_eraser",
    "load",
    "resume",
    "train",
    "write_comparison",
    "write_report",
]

_WHERE = {
    "Criterion": ("ivra.losses", "Criterion"),
    "EvalConfig": ("ivra.evaluation", "EvalConfig"),
    "Explainer": ("ivra.explainers", "Explainer"),
    "Hooks": ("ivra.training", "Hooks"),
    "IvraError": ("ivra.errors", "IvraError"),
    "Run": ("ivra.training", "Run"),
    "Terms": ("ivra.losses", "Terms"),
    "TrainConfig": ("ivra.training", "TrainConfig"),
    "View": ("ivra.losses", "View"),
    "compare": ("ivra.api", "compare"),
    "evaluate": ("ivra.evaluation", "evaluate"),
    "explain": ("ivra.api", "explain"),
    "export_eraser": ("ivra.api", "export_eraser"),
    "load": ("ivra.training", "load_run"),
    "resume": ("ivra.training", "resume"),
    "train": ("ivra.training", "train"),
    "write_comparison": ("ivra.api", "write_comparison"),
    "write_report": ("ivra.api", "write_report"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``ivra --help`` needs no PyTorch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'ivra' has no attribute '{name}'")
    module, attribute = _WHERE[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found
