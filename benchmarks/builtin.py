"""Each criterion trained alone on the built-in data, on its own metric beside the baselines.

    python benchmarks/builtin.py --criteria comp,suff,cons
    python benchmarks/builtin.py --criteria sim --output benchmarks/results/simulatability

Three seeds by default. ``sim`` takes most of an hour a seed, nearly all of it for the students
that judge. One JSON a cell; a finished cell is not repeated. The runs themselves go to ``--runs``
and are not kept.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from ivra.evaluation import EvalConfig
from ivra.storage import write_text_atomic
from ivra.studies import Cell, figure, markdown, run_cell, spread
from ivra.training import make_config

OWN = {"sim": "sim", "comp": "comp", "suff": "suff", "cons": "cons"}
BASELINES = ("untrained", "attention", "attention-last", "random")
SETTINGS: dict[str, dict[str, object]] = {
    "suff": {"options": {"suff": {"form": "probability"}}},
    "sim": {
        "options": {
            "sim": {
                "form": "guided",
                "practice": 2,
                "head_start": 0.4,
                "imitation": 0.2,
                "entropy": 0.35,
            }
        },
        "whiten": True,
        "by_class": False,
        "lr": 0.05,
        "epochs": 40.0,
        "validations": 4,
        "student_count": 2,
        "student_rows": 300,
        "student_pool": 1000,
        "student_schedule": "linear",
        "student_life": 1200,
    },
}
"""Of stage 2 where not the defaults; ``suff`` trains for the difference of probabilities that it is
measured by."""
PLAIN = EvalConfig(metrics=("accuracy", "aopc", "cons", "plausibility"))
TAUGHT = EvalConfig(
    metrics=("accuracy", "plausibility", "sim"),
    explainers=("untrained", "attention", "attention-last"),
    student_rows=300,
    student_epochs=120.0,
    controls=(),
    untaught=False,
)
"""Students learn few rows for long: from more, all explanations teach nearly everything; in fewer
steps, many a student has only just begun to learn."""


def cells(criteria: list[str], seeds: list[int], students: int) -> list[Cell]:
    """Criteria x seeds; students are taught only where simulatability was trained for."""
    return [
        Cell(
            group=name,
            training=make_config({"criteria": name, "seed": seed, **SETTINGS.get(name, {})}),
            evaluation=replace(TAUGHT, students=students) if name == "sim" else PLAIN,
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
            if explainer in found[0]["figures"]
            else "-"
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
    parser.add_argument("--students", type=int, default=5, help="of sim, for each explainer")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = arguments.criteria.split(",")
    results: dict[str, list[dict]] = {name: [] for name in names}
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for cell in cells(names, seeds, arguments.students):
        result = run_cell(cell, arguments.output, arguments.runs)
        results[cell.group].append(result)
        metric = OWN[cell.group]
        beside = {
            name: figure(result, name, metric)
            for name in ("ivra", *BASELINES)
            if name in result["figures"]
        }
        print(cell.name, metric, beside, flush=True)
    text = table(results)
    write_text_atomic(arguments.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
