"""NORM of the coefficients and NORM of the saliency, each softmax or sparsemax, by learning rate.

    IVRA_DATA=... python benchmarks/norms.py

    IVRA_DATA=... python benchmarks/norms.py --pairs softmax+softmax,sparsemax+softmax \\
        --seeds 1,2 --explainers "" --output benchmarks/results/norms/sst2-seeds

The preset ``table2`` at cpu scale with methods of its own, judged on the first 100 dev rows, where
such choices are made. One JSON a cell; a finished cell is not repeated.
"""

import argparse
import os
from pathlib import Path

from watch import Printed

from ivra.studies import preset_study, run_study, write_study

PAIRS = "softmax+softmax,sparsemax+sparsemax,softmax+sparsemax,sparsemax+softmax,gains+sparsemax"
"""NORM of the coefficients, and of the saliency. Gains have no NORM, but a temperature."""
RATES = (0.05, 0.002)


def method(pair: str, rate: float) -> dict[str, object]:
    """A way of training."""
    coefficients, saliency = pair.split("+")
    own = {"reading": "gains"} if coefficients == "gains" else {"coefficients_norm": coefficients}
    return {"base": "ivra-softmax", **own, "saliency_norm": saliency, "lr": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="sst2", help="the data set")
    parser.add_argument("--criteria", default="comp,suff")
    parser.add_argument("--pairs", default=PAIRS)
    parser.add_argument("--explainers", default="untrained")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--output", type=Path, help="folder (default: RESULTS/norms/DATA)")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper"))
    arguments = parser.parse_args()
    folder = os.environ.get("IVRA_DATA")
    results = Path(__file__).parent / "results" / "norms"
    output = arguments.output or results / arguments.data
    criteria, pairs = arguments.criteria.split(","), arguments.pairs.split(",")
    changes = {
        "data": [arguments.data],
        "explainers": [name for name in arguments.explainers.split(",") if name],
        "methods": {f"{pair}+{rate}": method(pair, rate) for pair in pairs for rate in RATES},
        "criteria": criteria,
        "columns": [*criteria, "support"],
        "seeds": [int(seed) for seed in arguments.seeds.split(",")],
        "evaluation": {"split": "dev"},
    }
    study = preset_study("table2", "cpu", changes, folder)
    found = run_study(study, output, data_folder=folder, runs=arguments.runs, watch=Printed())
    write_study(found, output)


if __name__ == "__main__":
    main()
