"""The figures of one evaluation as they come in."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from ivra.data import Item
from ivra.evaluation.bootstrap import Bootstrap, Floats
from ivra.evaluation.config import EvalConfig
from ivra.explainers import Explainer
from ivra.training import Run


class Sheet:
    """What one evaluation measures on, and its figures as they come in."""

    def __init__(
        self,
        run: Run,
        config: EvalConfig,
        items: Sequence[Item],
        explainers: Sequence[Explainer],
        progress: Callable[[str], None],
    ) -> None:
        self.run = run
        self.config = config
        self.items = items
        self.explainers = explainers
        self.progress = progress
        self.bootstrap = Bootstrap(config.resamples, config.seed)
        self.figures: dict[str, dict[str, object]] = {e.name: {} for e in explainers}
        self.undefined: dict[str, str] = {}
        self.tests: list[dict[str, object]] = []
        self.settings: dict[str, dict[str, object]] = {}

    def add(
        self,
        name: str,
        figures: Mapping[str, object],
        intervals: Mapping[str, tuple[float, float] | None],
    ) -> None:
        """Figures of an explainer, and the intervals of those that have one."""
        known = {key: list(interval) for key, interval in intervals.items() if interval}
        own = self.figures.setdefault(name, {})
        before: dict[str, object] = own.pop("intervals", {})  # type: ignore[assignment]
        own.update(figures)
        if before or known:
            own["intervals"] = before | known

    def means(self, name: str, columns: Mapping[str, Sequence[float] | Tensor | Floats]) -> None:
        """Means over rows with their intervals; that of no rows is undefined."""
        arrays = {key: np.asarray(column, dtype=np.float64) for key, column in columns.items()}
        figures = {key: float(a.mean()) if len(a) else None for key, a in arrays.items()}
        self.add(name, figures, self.bootstrap.of_means(arrays))
