"""Train, evaluate and explain once on each: tiny GPT-2, tiny Llama, and e-SNLI pairs.

    IVRA_DATA=... python benchmarks/end_to_end.py --output benchmarks/results/end_to_end

This shows that the whole loop runs on decoders and on pairs; the models are random and briefly
trained, so the figures say nothing about the method.
"""

import argparse
import os
from pathlib import Path

from ivra.api import explain
from ivra.evaluation import EvalConfig
from ivra.studies import Cell, figure, run_cell
from ivra.training import TrainConfig, load_run, read_splits

EVALUATION = EvalConfig(metrics=("accuracy", "aopc", "cons"), rows=200)


def cells(data: str) -> list[Cell]:
    """One cell a case; the last needs a folder that holds ``esnli``."""
    decoders = [
        Cell(
            model,
            TrainConfig(model=model, criteria="comp,suff", epochs=1.0, finetune_epochs=8.0),
            EVALUATION,
        )
        for model in ("tiny-gpt2", "tiny-llama")
    ]
    if not data:
        return decoders
    pairs = TrainConfig(
        data=str(Path(data) / "esnli"),
        criteria="comp,suff",
        finetune_epochs=1.0,
        max_steps=60,
        max_length=96,
    )
    return [*decoders, Cell("esnli-tiny-electra", pairs, EVALUATION)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/end_to_end"))
    parser.add_argument("--runs", type=Path, default=Path("runs/end_to_end"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for cell in cells(arguments.data):
        places = {arguments.data: "$IVRA_DATA"} if arguments.data else {}
        result = run_cell(cell, arguments.output, arguments.runs, places=places)
        run = load_run(arguments.runs / cell.name)
        explained = explain(run, read_splits(run.config).test[:2])
        print(cell.name, [round(sum(row.saliency), 6) for row in explained])
        for name in ("ivra", "untrained", "attention", "random"):
            print(f"  {name:12}", {m: figure(result, name, m) for m in ("comp", "suff", "cons")})


if __name__ == "__main__":
    main()
