"""Run by test_killed.py: trainings that are killed and resumed, each in a process of its own.

``python killing.py FOLDER SEED KILLS OPTIONS...`` trains ``FOLDER/runs/whole`` undisturbed, then
kills others with SIGKILL, half of them at a random moment and half at a random one of their calls
to the file system, resumes each and prints a JSON line on how it ended. With five kills or more a
last run is killed over and over before it may end.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

torch.set_num_threads(1)

import ivra.cli.train  # noqa: E402, F401
from ivra.backbones import load_backbone  # noqa: E402
from ivra.cli.main import main  # noqa: E402

EVENTS = ("open", "os.", "shutil.")


def watch(folder: str, fuse: int, count: Path) -> None:
    """Kill this process at the call number ``fuse`` that touches ``folder``."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event.startswith(EVENTS) and any(folder in str(given) for given in arguments[:2]):
            seen += 1
            if fuse < 0:
                os.pwrite(counter, f"{seen:9}".encode(), 0)
            elif seen == fuse:
                os.kill(os.getpid(), signal.SIGKILL)

    counter = os.open(count, os.O_CREAT | os.O_RDWR)
    sys.addaudithook(hook)


def start(folder: Path, arguments: list[str], fuse: int | None = None) -> int:
    """``ivra ARGUMENTS`` in a process of its own; its id."""
    pid = os.fork()
    if pid:
        return pid
    output = os.open(folder / "said", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if fuse is not None:
        watch(arguments[-1], fuse, folder / "count")
    try:
        main(arguments)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        os._exit(99)  # not reached but by a traceback


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def left(run: Path) -> dict[str, str]:
    """What a finished run consists of, but for what says when and how often it was taken up."""
    found = {}
    for path in sorted(run.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    record = json.loads((run / "run.json").read_text())
    del record["seconds"], record["resumed"]
    return found | {"run.json": json.dumps(record)}


def again(folder: Path, run: Path, train: list[str]) -> str:
    """Resume a run that was killed; how that went."""
    if ended(start(folder, ["train", "--resume", str(run)])) == 0:
        return "resumed"
    said = (folder / "said").read_text()
    if f"{run} is finished: nothing to resume" in said:
        return "finished"
    if "has no config.yaml" not in said and "no run at" not in said:
        raise SystemExit(f"not resumed: {said}")
    shutil.rmtree(run, ignore_errors=True)
    assert ended(start(folder, train)) == 0
    return "not begun"


def killed(folder: Path, draw: random.Random, train: list[str], took: float, calls: int) -> str:
    """Kill a training; how."""
    if draw.random() < 0.5:
        fuse = draw.randint(1, calls)
        return f"call {fuse}: {ended(start(folder, train, fuse))}"
    after = draw.uniform(0, took)
    pid = start(folder, train)
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)
    return f"{after:.2f} s: {ended(pid)}"


def run() -> None:
    folder, seed, kills, *options = sys.argv[1:]
    base, draw = Path(folder), random.Random(int(seed))
    load_backbone("tiny-electra", ("no", "yes"))  # what is imported now, no run has to
    runs = base / "runs"

    def train(name: str) -> list[str]:
        return ["train", *options, "--output", str(runs), "--name", name]

    whole, began = runs / "whole", time.monotonic()
    assert ended(start(base, train("whole"), -1)) == 0, (base / "said").read_text()
    took, calls = time.monotonic() - began, int((base / "count").read_text())
    expected = left(whole)
    for number in range(int(kills)):
        name = f"run{number}"
        how = killed(base, draw, train(name), took, calls)
        outcome = again(base, runs / name, train(name))
        report(name, how, outcome, runs, expected)
    if int(kills) < 5:
        return
    name = "chain"
    assert ended(start(base, train(name), calls // 3)) == -signal.SIGKILL
    for _ in range(5):
        pid = start(base, ["train", "--resume", str(runs / name)])
        time.sleep(draw.uniform(0.5, 0.9) * took)
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    report(name, "6 times", again(base, runs / name, train(name)), runs, expected)


def report(name: str, how: str, outcome: str, runs: Path, expected: dict[str, str]) -> None:
    found = left(runs / name)
    line = {
        "run": name,
        "killed": how,
        "outcome": outcome,
        "resumed": json.loads((runs / name / "run.json").read_text())["resumed"],
        "differs": sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k)),
        "latest": os.readlink(runs / "latest"),
        "whole": left(runs / "whole") == expected,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    shutil.rmtree(runs / name)


if __name__ == "__main__":
    run()
