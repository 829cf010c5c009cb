"""Heat maps of what a trained module weighs every head by (IvRA figure 3, SMaT)."""

import math

from matplotlib.figure import Figure

from ivra.studies.matrix import StudyCell
from ivra.studies.run import StudyResult
from ivra.training import load_run


def example_cells(found: StudyResult, model: str) -> list[StudyCell]:
    """Of the first data set and seed: the first finished cell of every method and criterion."""
    cells = [cell for cell in found.matrix.cells if cell.model == model]
    first: dict[tuple[str, str], StudyCell] = {}
    for cell in cells:
        same = cell.base_run == cells[0].base_run
        if same and cell.method and cell.criterion and cell.cell.name in found.results:
            first.setdefault((cell.method, cell.criterion), cell)
    return list(first.values())


def coefficient_maps(found: StudyResult, model: str, titles: dict[str, str]) -> Figure | None:
    """A panel a method: its coefficient of every head, layers from the bottom up.

    The colours of all panels have one scale, from 0 or the least to the largest. ``None`` where
    no run is left to read.
    """
    maps = []
    for cell in example_cells(found, model):
        folder = found.matrix.runs / str(cell.cell.run)
        if (folder / "run.json").is_file() and cell.method is not None:
            weights = load_run(folder).module.head_coefficients().detach().cpu()
            maps.append((titles.get(cell.method, cell.method), cell.criterion, weights.tolist()))
    if not maps:
        return None
    values = [value for _, _, rows in maps for row in rows for value in row]
    low, high = min(0.0, *values), max(values)
    columns = min(4, len(maps))
    deep = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(1.0 + 2.3 * columns, 0.5 + 2.5 * deep), layout="constrained")
    axes = figure.subplots(deep, columns, squeeze=False)
    image = None
    for ax, entry in zip(axes.flat, [*maps, *([None] * (deep * columns - len(maps)))], strict=True):
        if entry is None:
            ax.set_visible(False)
            continue
        title, criterion, rows = entry
        image = ax.imshow(rows, cmap="cividis", vmin=low, vmax=high, origin="lower", aspect="auto")
        ax.set_title(f"{title} ({criterion})", fontsize=9, loc="left")
        ax.set_xlabel("head")
        ax.set_ylabel("layer")
        ax.set_xticks(range(len(rows[0])), [str(n + 1) for n in range(len(rows[0]))])
        ax.set_yticks(range(len(rows)), [str(n + 1) for n in range(len(rows))])
        for side in ax.spines.values():
            side.set_visible(False)
        ax.tick_params(length=0)
    assert image is not None
    figure.colorbar(image, ax=axes, label="coefficient of the head", shrink=0.8)
    return figure
