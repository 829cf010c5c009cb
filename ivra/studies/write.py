"""What a study leaves beside its cells: tables and pictures."""

from collections.abc import Sequence
from pathlib import Path

from ivra.storage import write_text_atomic
from ivra.studies.plots import write_plots
from ivra.studies.run import StudyResult
from ivra.studies.tables import Table, csv_tables, latex_table, markdown_table, tables_of


def write_study(found: StudyResult, output: Path, median: bool = False) -> list[Path]:
    """Write ``tables.md``, ``tables.tex``, ``tables.csv`` and the pictures; what was written.

    Args:
        median: median and quartiles in place of mean and standard error.
    """
    tables = tables_of(found, median)
    return [*write_tables(tables, output), *write_plots(found, tables, output)]


def write_tables(tables: Sequence[Table], output: Path) -> list[Path]:
    """``tables.md``, ``tables.tex`` and ``tables.csv``; what was written."""
    texts = {
        "tables.md": "\n".join(markdown_table(table) for table in tables),
        "tables.tex": "\n".join(latex_table(table) for table in tables),
        "tables.csv": csv_tables(tables),
    }
    for name, text in texts.items():
        write_text_atomic(output / name, text)
    return [output / name for name in texts]
