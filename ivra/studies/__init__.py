"""Studies: many runs at once, and tables of them."""

from ivra.studies.grid import Cell, figure, markdown, run_cell, spread

__all__ = ["Cell", "figure", "markdown", "run_cell", "spread"]
