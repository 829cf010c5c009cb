"""Table 1 of the IvRA paper on one data set, with MiniLM as teacher and as student.

    IVRA_DATA=... python benchmarks/simulatability.py --data sst2

The preset ``table1`` at cpu scale, but for what students and their teachers need: students learn
``--student-rows`` rows for 2 epochs, and modules are trained on batches of rows of any length, at a
fifth of the learning rate. One JSON a cell; a finished cell is not repeated.
"""

import argparse
import os
from pathlib import Path

from watch import Printed

from ivra.studies import preset_study, run_study, write_study

RESULTS = Path(__file__).parent / "results"
METHODS = "smat,ivra-softmax,ivra-value,ivra-sparsemax"
EXPLAINERS = (
    "untrained,attention,attention-last,input-x-gradient,integrated-gradients,occlusion,random"
)
STUDENTS = {"student_lr": 1e-4, "student_beta": 2.0, "student_count": 1}
JUDGED = {"student_epochs": 2, "students": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="sst2", help="the data set")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--explainers", default=EXPLAINERS)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--student-rows", type=int, default=300)
    parser.add_argument("--rows", type=int, help="test rows (default: the preset's)")
    parser.add_argument("--batching", default="shuffled")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--finetune-epochs", type=float, help="default: the preset's")
    parser.add_argument("--output", type=Path, help="folder (default: RESULTS/paper/DATA-sim)")
    parser.add_argument("--runs", type=Path, default=Path("runs/sim"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ...")
    arguments = parser.parse_args()
    folder = os.environ.get("IVRA_DATA")
    output = arguments.output or RESULTS / "paper" / f"{arguments.data}-sim"
    own = {"batching": arguments.batching, "lr": arguments.lr}
    shown = {"student_rows": arguments.student_rows}
    tuned = (
        {} if arguments.finetune_epochs is None else {"finetune_epochs": arguments.finetune_epochs}
    )
    changes = {
        "data": [arguments.data],
        "explainers": arguments.explainers.split(","),
        "methods": {name: {"base": name, **own} for name in arguments.methods.split(",")},
        "seeds": [int(seed) for seed in arguments.seeds.split(",")],
        "training": {**STUDENTS, **shown, **tuned, "options": {"sim": {"practice": 1}}},
        "evaluation": {**JUDGED, **shown},
    }
    study = preset_study("table1", "cpu", changes, folder)
    if arguments.rows is not None:
        study.data[arguments.data].evaluation["rows"] = arguments.rows
    found = run_study(
        study,
        output,
        data_folder=folder,
        runs=arguments.runs,
        device=arguments.device,
        watch=Printed(),
    )
    write_study(found, output)


if __name__ == "__main__":
    main()
