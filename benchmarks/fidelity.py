"""Ways of training the value level, and the readout level beside it: for comp, and for fidelity.

    IVRA_DATA=... python benchmarks/fidelity.py --model runs/paper/minilm_sst2_base-seed0/model

The model is the one that the study of docs/results.md fine-tunes on SST-2. Judged on the first 150
dev rows, where such choices are made. A step of ``comp`` is six forward passes of the batch, one of
``fidelity`` nine, of shorter texts; the JSON has the seconds. One JSON a cell; a finished cell is
not repeated.
"""

import argparse
import os
from pathlib import Path

from ivra.evaluation import EvalConfig
from ivra.studies import Cell, figure, markdown, run_cell
from ivra.training import TrainConfig

FIDELITY = {
    "criteria": "fidelity",
    "options": {"fidelity": {"form": "squared", "target": "log-odds"}},
    "lr": 0.02,
}
VARIANTS = {
    "comp": {"criteria": "comp", "options": {"comp": {"samples": 4}}, "lr": 0.05},
    "fidelity": FIDELITY,
    "fidelity-hidden16": {**FIDELITY, "value_hidden": 16},
    "fidelity-hidden64": {**FIDELITY, "value_hidden": 64},
    "fidelity-hidden64-400": {**FIDELITY, "value_hidden": 64, "max_steps": 400},
    "fidelity-readout-400": {
        **FIDELITY,
        "value_hidden": 64,
        "max_steps": 400,
        "levels": ["feature", "head", "layer", "value", "readout"],
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--model", required=True, help="a model fine-tuned on SST-2")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/fidelity"))
    parser.add_argument("--runs", type=Path, default=Path("runs/fidelity"))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    arguments = parser.parse_args()
    data = str(Path(arguments.data) / "sst2")
    arguments.output.mkdir(parents=True, exist_ok=True)
    places = {arguments.model: "minilm fine-tuned on sst2, seed 0", arguments.data: "$IVRA_DATA"}
    judged = EvalConfig(
        metrics=("aopc",), data=data, split="dev", rows=150, explainers=(), resamples=0
    )
    rows = []
    for name in arguments.variants.split(","):
        training = TrainConfig.model_validate(
            {
                "model": arguments.model,
                "data": data,
                "finetune": "never",
                "batch_size": 16,
                "batching": "by-length",
                "max_length": 64,
                "max_steps": 100,
                "validations": 1,
                "validation_rows": 50,
                **VARIANTS[name],
            }
        )
        cell = Cell(name, training, judged)
        result = run_cell(cell, arguments.output, arguments.runs, places=places)
        rows.append([name, *(f"{figure(result, 'ivra', m):.3f}" for m in ("comp", "suff"))])
    print(markdown(["trained for", "COMP", "SUFF"], rows))


if __name__ == "__main__":
    main()
