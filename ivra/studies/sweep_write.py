"""What a sweep leaves beside its cells: ARG, accuracies and the front, for people and programs."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from ivra.storage import write_json_atomic, write_text_atomic
from ivra.studies.gains import Gain, Sweep, metric_of, sweeps_of
from ivra.studies.grid import markdown
from ivra.studies.plots import STYLE, save
from ivra.studies.run import StudyResult
from ivra.studies.sweep_plots import front_of_two, front_panels, heat_map, percent
from ivra.studies.tables import latex, latex_table, markdown_table, tables_of
from ivra.studies.write import write_tables
from ivra.training import versions

UNDEFINED = "undef."
CSV_HEADER = ("model", "method", "criteria", "criterion", "member", "arg", "reason", "seeds")


def write_sweep(found: StudyResult, output: Path) -> list[Path]:
    """Write ``sweep.md``, ``.tex``, ``.csv``, ``.json``, the tables of all figures and the
    pictures ``arg`` and ``front``; what was written."""
    sweeps = sweeps_of(found)
    texts = {
        "sweep.md": "\n".join(sweep_markdown(sweep) for sweep in sweeps),
        "sweep.tex": "\n".join(sweep_latex(sweep) for sweep in sweeps),
        "sweep.csv": sweep_csv(sweeps),
    }
    for name, text in texts.items():
        write_text_atomic(output / name, text)
    write_json_atomic(output / "sweep.json", sweep_json(found, sweeps))
    written = [output / name for name in (*texts, "sweep.json")]
    written += write_tables(tables_of(found), output)
    for number, sweep in enumerate(sweeps):
        ending = "" if len(sweeps) == 1 else f"-{number + 1}"
        with matplotlib.rc_context(STYLE):
            pictures = {f"arg{ending}": heat_map(sweep)}
            for data in sweep.points if len(sweep.criteria) > 1 else ():
                several = f"-{len(pictures)}" if len(sweep.points) > 1 else ""
                pictures[f"front{ending}{several}"] = front_panels(sweep, data)
            for stem, figure in pictures.items():
                written += [save(figure, output / f"{stem}.{kind}") for kind in ("png", "svg")]
    return written


def summary_lines(sweep: Sweep) -> list[str]:
    """For each combiner: in how many (criterion, mixture) cells ARG is at least 0, and the least.

    A cell counts if the mixture holds the criterion.
    """
    lines = []
    for method in sweep.methods:
        own = _counted(sweep, method)
        known = [(g.arg.value, g) for g in own if g.arg.value is not None]
        if not own:
            continue
        at_least = sum(value >= 0 for value, _ in known)
        line = f"{method}: ARG at least 0 in {at_least} of {len(own)} cells"
        if len(known) < len(own):
            line += f", undefined in {len(own) - len(known)}"
        if known:
            value, least = min(known, key=lambda pair: pair[0])
            where = f"{least.criterion} in {' + '.join(least.criteria)}"
            line += f"; least {percent(value)} % ({where})"
        lines.append(line)
    return lines


def _counted(sweep: Sweep, method: str) -> list[Gain]:
    return [g for g in sweep.gains if g.method == method and g.member and len(g.criteria) > 1]


def _rows(sweep: Sweep, method: str, bold: str) -> list[list[str]]:
    """A line a subset; what is trained for in bold."""
    rows = []
    for subset in sweep.subsets():
        cells = [sweep.gain(method, subset, criterion) for criterion in sweep.criteria]
        if any(cells):
            rows.append([" + ".join(subset), *(_shown(cell, bold) for cell in cells)])
    return rows


def _shown(gain: Gain | None, bold: str) -> str:
    if gain is None:
        return ""
    text = UNDEFINED if gain.arg.value is None else percent(gain.arg.value)
    return bold.format(text) if gain.member else text


def _headings(sweep: Sweep) -> list[str]:
    return [f"{c} ({metric_of(c).title})" for c in sweep.criteria]


def _note(sweep: Sweep) -> str:
    seeds = max((len(gain.seeds) for gain in sweep.gains), default=0)
    over = ", ".join(sweep.points)
    return (
        "ARG in percent against training for the column's criterion alone, mean over "
        f"{over} and {seeds} seed{'s' * (seeds != 1)}; above 0 is a gain, bold is trained for."
    )


def _reasons(sweep: Sweep) -> list[str]:
    return list(
        dict.fromkeys(
            f"{g.method}, {' + '.join(g.criteria)}, {g.criterion}: {g.arg.reason}"
            for g in sweep.gains
            if g.arg.reason
        )
    )


def sweep_markdown(sweep: Sweep) -> str:
    """ARG of each combiner, the summary, what is undefined, and the accuracies."""
    parts = [f"### Average relative gain: {sweep.model}", "", _note(sweep), ""]
    for method in sweep.methods:
        parts += [
            f"{method}:",
            "",
            markdown(["", *_headings(sweep)], _rows(sweep, method, "**{}**")),
        ]
    parts += [f"* {line}" for line in summary_lines(sweep)]
    parts += [f"* undefined: {line}" for line in _reasons(sweep)]
    return "\n".join([*parts, "", markdown_table(sweep.accuracy)])


def sweep_latex(sweep: Sweep) -> str:
    """The same for the package booktabs."""
    tables = []
    for method in sweep.methods:
        caption = f"Average relative gain: {sweep.model}, {method}. {_note(sweep)}"
        lines = [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(sweep.criteria)}}}",
            r"\toprule",
            " & ".join(["", *(latex(name) for name in _headings(sweep))]) + r" \\",
            r"\midrule",
        ]
        for row in _rows(sweep, method, r"\textbf{{{}}}"):
            cells = [cell.replace("\N{MINUS SIGN}", "$-$") for cell in row[1:]]
            lines.append(" & ".join([latex(row[0]), *cells]) + r" \\")
        tables.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]))
    return "\n".join([*tables, latex_table(sweep.accuracy)])


def sweep_csv(sweeps: Sequence[Sweep]) -> str:
    """A line a cell of the heat maps, with full precision and the ARG of every seed."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for sweep in sweeps:
        for g in sweep.gains:
            seeds = " ".join("-" if v is None else repr(v) for v in g.seeds)
            value = "" if g.arg.value is None else repr(g.arg.value)
            place = (sweep.model, g.method, "+".join(g.criteria), g.criterion, int(g.member))
            writer.writerow([*place, value, g.arg.reason or "", seeds])
    return target.getvalue()


def sweep_json(found: StudyResult, sweeps: Sequence[Sweep]) -> dict[str, Any]:
    """Everything of the tables and pictures, as numbers."""
    return {
        "study": found.study.name,
        "seeds": list(found.study.seeds),
        "versions": versions(),
        "models": [
            {
                "model": sweep.model,
                "criteria": list(sweep.criteria),
                "methods": list(sweep.methods),
                "alone": sweep.methods[0],
                "arg": [_gain_json(gain) for gain in sweep.gains],
                "summary": summary_lines(sweep),
                "accuracy": [
                    {"name": row.name, "data": column.data, "seeds": list(cell.values)}
                    | {"mean": cell.mean, "standard_error": cell.error}
                    for row in sweep.accuracy.rows
                    for column, cell in zip(sweep.accuracy.columns, row.cells, strict=True)
                ],
                "front": {data: _front_json(sweep, data) for data in sweep.points},
            }
            for sweep in sweeps
        ],
        "failures": dict(found.failures),
    }


def _gain_json(gain: Gain) -> dict[str, Any]:
    return {
        "method": gain.method,
        "criteria": list(gain.criteria),
        "criterion": gain.criterion,
        "member": gain.member,
        "arg": gain.arg.value,
        "reason": gain.arg.reason,
        "seeds": list(gain.seeds),
        "gains": gain.arg.gains,
    }


def _front_json(sweep: Sweep, data: str) -> dict[str, Any]:
    points = sweep.points[data]
    names = sweep.criteria
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return {
        "better": {name: metric_of(name).better for name in names},
        "points": [
            {
                "method": point.method,
                "criteria": list(point.criteria),
                "figures": point.figures,
                "front": point.front,
            }
            for point in points
        ],
        "pairs": {f"{a},{b}": [list(p) for p in front_of_two(points, (a, b))] for a, b in pairs},
    }
