"""The three readings of NORM compared: each trained for comp and for suff, over three seeds.

    python benchmarks/readings.py --output benchmarks/results/readings

Built-in data, tiny ELECTRA fine-tuned once a seed; the module is trained on the frozen model with
the paper's three levels (and, for ``gains``, with the value level too). One JSON a cell.
"""

import argparse
from pathlib import Path

from ivra.evaluation import EvalConfig
from ivra.storage import write_text_atomic
from ivra.studies import Cell, figure, markdown, run_cell, spread
from ivra.training import TrainConfig, train

PAPER = ("feature", "head", "layer")
VARIANTS = {
    "gains-softmax": ("gains", "softmax", PAPER),
    "coefficients-softmax": ("coefficients", "softmax", PAPER),
    "coefficients-sparsemax": ("coefficients", "sparsemax", PAPER),
    "literal-softmax": ("literal", "softmax", PAPER),
    "literal-sparsemax": ("literal", "sparsemax", PAPER),
    "gains-softmax-value": ("gains", "softmax", (*PAPER, "value")),
}


def finetuned(runs: Path, seed: int) -> str:
    """The folder of a tiny ELECTRA fine-tuned on the built-in data; made once a seed."""
    folder = runs / f"finetuned-seed{seed}"
    if not (folder / "run.json").is_file():
        config = TrainConfig(criteria="suff", seed=seed, max_steps=1, validations=1)
        train(config, output=runs, name=folder.name)
    return str(folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/readings"))
    parser.add_argument("--runs", type=Path, default=Path("runs/readings"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=float, default=4.0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[dict]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        model = finetuned(arguments.runs, seed)
        for variant, (reading, norm, levels) in VARIANTS.items():
            for criterion in ("comp", "suff"):
                training = TrainConfig(
                    criteria=criterion,
                    model=model,
                    seed=seed,
                    finetune="never",
                    epochs=arguments.epochs,
                    levels=levels,
                    reading=reading,
                    coefficients_norm=norm,
                    saliency_norm=norm,
                )
                cell = Cell(
                    f"{variant}-{criterion}",
                    training,
                    EvalConfig(metrics=("aopc",), explainers=("untrained",)),
                )
                places = {model: "tiny-electra fine-tuned on the built-in data"}
                result = run_cell(cell, arguments.output, arguments.runs, places=places)
                found.setdefault((variant, criterion), []).append(result)
                values = [figure(result, name, criterion) for name in ("ivra", "untrained")]
                print(cell.name, values, flush=True)
    rows = [
        [
            variant,
            *(
                spread(figure(result, "ivra", criterion) for result in found[variant, criterion])
                for criterion in ("comp", "suff")
            ),
        ]
        for variant in VARIANTS
    ]
    first = next(iter(VARIANTS))
    untrained = [
        spread(figure(r, "untrained", criterion) for r in found[first, criterion])
        for criterion in ("comp", "suff")
    ]
    header = ["reading and NORM", "COMP, trained for it (higher)", "SUFF, trained for it (lower)"]
    text = markdown(header, [*rows, ["untrained", *untrained]])
    write_text_atomic(arguments.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
