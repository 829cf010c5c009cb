"""Studies: many runs at once, and tables and pictures of them.

    study = read_study("study.yaml")                  # or make_study({...}), preset_study("table2")
    found = run_study(study, Path("studies/mine"))    # goes on where an earlier call was stopped
    write_study(found, Path("studies/mine"))          # tables and pictures

A :class:`Study` is models x data sets x seeds, each fine-tuned once, explained by static
explainers and by methods that are trained for criteria. Every combination is a :class:`Cell`
with a JSON of its own, which is all that the tables read.
"""

from ivra.studies.columns import COLUMNS
from ivra.studies.gains import Gain, Point, Sweep, sweeps_of
from ivra.studies.grid import Cell, figure, markdown, run_cell, spread
from ivra.studies.methods import METHODS
from ivra.studies.pareto import pareto_front
from ivra.studies.presets import PRESETS, SCALES, preset_study
from ivra.studies.run import Planned, StudyResult, Watch, plan, run_study
from ivra.studies.spec import Study, make_study, read_study
from ivra.studies.sweep import subsets, sweep_study
from ivra.studies.sweep_write import summary_lines, write_sweep
from ivra.studies.tables import (
    Summary,
    Table,
    csv_tables,
    latex_table,
    markdown_table,
    summary_of,
    tables_of,
)
from ivra.studies.write import write_study

__all__ = [
    "COLUMNS",
    "METHODS",
    "PRESETS",
    "SCALES",
    "Cell",
    "Gain",
    "Planned",
    "Point",
    "Study",
    "StudyResult",
    "Summary",
    "Sweep",
    "Table",
    "Watch",
    "csv_tables",
    "figure",
    "latex_table",
    "make_study",
    "markdown",
    "markdown_table",
    "pareto_front",
    "plan",
    "preset_study",
    "read_study",
    "run_cell",
    "run_study",
    "spread",
    "subsets",
    "summary_lines",
    "summary_of",
    "sweep_study",
    "sweeps_of",
    "tables_of",
    "write_study",
    "write_sweep",
]
