"""Peak memory of AOPC over sets of growing size: it should not grow with the set.

    python benchmarks/aopc_memory.py --json benchmarks/results/aopc_memory.json

A tiny ELECTRA and rows of random words, 20 to 120 tokens each. Every size runs in a process of its
own; the figure is how much the peak of its resident memory rose from when rows, scores and model
were there.
"""

import argparse
import json
import random
import resource
import subprocess
import sys

import torch

from ivra.backbones import load_backbone
from ivra.data import Row, encode_rows
from ivra.evaluation import AopcSettings, aopc
from ivra.storage import write_json_atomic
from ivra.training import versions

WORDS = ("the", "plot", "was", "not", "good", "but", "a", "very", "dull", "film", "and", "music")


def peak() -> float:
    """MiB of resident memory at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(rows: int) -> dict[str, float]:
    """Peak memory before and after AOPC over ``rows`` rows, in MiB."""
    torch.set_num_threads(1)
    draw = random.Random(0)
    backbone = load_backbone("tiny-electra", ("no", "yes"), seed=0).eval()
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(20, 120))) for _ in range(rows)]
    given = [Row(f"row-{i}", (text,)) for i, text in enumerate(texts)]
    items = encode_rows(given, backbone.tokenizer, None, 128)
    scores = [torch.tensor([draw.random() for _ in item.input_ids]) for item in items]
    before = peak()
    found = aopc(backbone, items, {"random": scores}, AopcSettings())
    tokens = sum(len(item.input_ids) for item in items)
    return {
        "rows": rows,
        "tokens": tokens,
        "before_mib": round(before, 1),
        "risen_by_mib": round(peak() - before, 1),
        "comp": float(found["random"].comp.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", default="500,2000,10000", help="sizes, with commas")
    parser.add_argument("--one", type=int, help="measure this size alone and print it")
    parser.add_argument("--json", help="result file")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(measure(arguments.one)))
        return
    sizes = []
    for rows in arguments.rows.split(","):
        command = [sys.executable, __file__, "--one", rows]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        sizes.append(json.loads(done.stdout.splitlines()[-1]))
        print(sizes[-1], flush=True)
    if arguments.json:
        command_line = f"python benchmarks/aopc_memory.py --rows {arguments.rows}"
        write_json_atomic(
            arguments.json, {"command": command_line, "versions": versions(), "sizes": sizes}
        )


if __name__ == "__main__":
    main()
