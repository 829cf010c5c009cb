"""Each criterion trained alone on the built-in data, on its own metric beside the baselines.

    python benchmarks/builtin.py --output benchmarks/results/builtin

Three seeds by default. One JSON a cell; a finished cell is not repeated. The runs themselves go
to ``--runs`` and are not kept.
"""

import argparse
from pathlib import Path

from ivra.evaluation import EvalConfig
from ivra.storage import write_text_atomic
from ivra.studies import Cell, figure, markdown, run_cell, spread
from ivra.training import make_config

OWN = {"sim": "sim", "comp": "comp", "suff": "suff", "cons": "cons"}
BASELINES = ("untrained", "attention", "attention-last", "random")
METRICS = ("accuracy", "aopc", "cons", "plausibility")
SETTINGS: dict[str, dict[str, object]] = {
    "suff": {"options": {"suff": {"form": "probability"}}},
    "sim": {"epochs": 24.0, "student_rows": 1000},
}
"""Of stage 2 where not the defaults: ``sim`` sees three generations of students, ``suff`` trains
for the difference of probabilities that it is measured by."""
STUDENT_EPOCHS = 60.0
"""Twice the default: after 30, many a student from scratch has only just begun to learn."""


def cells(criteria: list[str], seeds: list[int], students: int) -> list[Cell]:
    """Criteria x seeds; students are taught only where simulatability was trained for."""
    return [
        Cell(
            group=name,
            training=make_config({"criteria": name, "seed": seed, **SETTINGS.get(name, {})}),
            evaluation=EvalConfig(
                metrics=(*METRICS, *(["sim"] if name == "sim" else [])),
                students=students,
                student_epochs=STUDENT_EPOCHS,
            ),
        )
        for seed in seeds
        for name in criteria
    ]


def table(results: dict[str, list[dict]]) -> str:
    """The criterion's own metric for every explainer, and what else the readers ask for."""
    rows = []
    for name, found in results.items():
        metric = OWN[name]
        own = [
            spread(figure(result, explainer, metric) for result in found)
            for explainer in ("ivra", *BASELINES)
        ]
        accuracy = spread(result["accuracy"]["accuracy"] for result in found)
        plausibility = spread(figure(result, "ivra", "plausibility") for result in found)
        rows.append([name, *own, plausibility, accuracy])
    header = ["trained for = measured by", "ivra (trained)", *BASELINES, "AUC", "accuracy"]
    return markdown(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/builtin"))
    parser.add_argument("--runs", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--criteria", default="comp,suff,cons,sim")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--students", type=int, default=3, help="of sim, for each explainer")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = arguments.criteria.split(",")
    results: dict[str, list[dict]] = {name: [] for name in names}
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for cell in cells(names, seeds, arguments.students):
        result = run_cell(cell, arguments.output, arguments.runs)
        results[cell.group].append(result)
        metric = OWN[cell.group]
        beside = {name: figure(result, name, metric) for name in ("ivra", *BASELINES)}
        print(cell.name, metric, beside, flush=True)
    text = table(results)
    write_text_atomic(arguments.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
