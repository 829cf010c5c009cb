"""A Llama of any size in 8 bits with LoRA: what each criterion costs beside peft alone.

    python benchmarks/large.py --device cuda --json benchmarks/results/large/7b.json
    python benchmarks/large.py --layers 4 --hidden 256 --intermediate 688 --heads 8 \
        --vocabulary 2000 --rows 8 --length 64 --dtype float32 \
        --json benchmarks/results/large/cpu.json

The default is the shape of Llama-2-7B with random weights, bfloat16 beside the quantised ones,
gradient checkpointing, and the paper's batch of 64 rows. Steps of stage 2 are timed with adapters,
head and module trained. *peft alone* is a step of cross-entropy of the same model with
transformers' own fused attention.

Beside each figure stand its floors. Passes are counted as they happen; ``needed`` is what the
criterion's definition asks for with the options in use. The floor in seconds is what those passes
take: a pass with its backward as long as a step of peft alone, one without as long as a plain
forward, both measured before and after the criterion, for a machine may drift. FLOPs and bytes are
counted on paper: two a weight and token and pass, four a hidden feature, layer and pair of tokens
for attention; the weights of the linear layers are read once a pass. A backward pass is one pass,
with checkpointing two.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.hooks import RemovableHandle
from transformers import LlamaConfig

from ivra.attention import InterpretableAttention
from ivra.backbones import Backbone, load_backbone
from ivra.data import Batch, Item, Row, builtin_tokenizer
from ivra.losses.topk import SAMPLES
from ivra.storage import write_json_atomic
from ivra.training import CriteriaStage, Encoder, Hooks, TrainConfig, environment, versions
from ivra.training.loop import trainable

LABELS = ("negative", "positive")
CRITERIA = ("cons", "suff", "comp", "sim")
MIXTURES = (*CRITERIA, ",".join(CRITERIA))
PRACTICE = 4
REMOVAL = {"suff", "comp"}


def needed(criteria: str) -> dict[str, int]:
    """Passes of a step: with their backward, and forward alone.

    The task's cross-entropy and the saliency come from one pass with its backward. A cut is one
    rerun with its backward, and one without for each sample. A student takes ``PRACTICE`` steps,
    each with the teacher's word on its rows (the last of them with a backward), and looks ahead:
    three gradients and the two ends of a difference.
    """
    names = criteria.split(",")
    cuts = sum(name in REMOVAL for name in names)
    both, forward = 1 + cuts, SAMPLES * cuts
    if "sim" in names:
        both += PRACTICE + 1 + 3
        forward += PRACTICE - 1 + 2
    return {"with_backward": both, "forward_alone": forward}


class Passes:
    """Counts the passes of a model and of its students, forward and backward."""

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0

    def watch(self, backbone: Backbone) -> RemovableHandle:
        """A pass begins at the first layer; its backward arrives there last."""

        def seen(layer: object, inputs: object, output: torch.Tensor) -> None:
            self.forward += 1
            if output.requires_grad:
                output.register_hook(arrived)

        def arrived(gradient: torch.Tensor) -> None:
            self.backward += 1

        return backbone.blocks[0].register_forward_hook(seen)


class Clock(Hooks):
    """Seconds, passes and the peak of memory of each step after the first."""

    def __init__(self, device: torch.device, passes: Passes) -> None:
        self.seconds: list[float] = []
        self.peak = 0
        self.passes: list[tuple[int, int]] = []
        self._device = device
        self._counted = passes
        self._started = 0.0

    def on_step(self, stage: str, step: int, terms: dict[str, float]) -> None:
        synchronise(self._device)
        now = time.perf_counter()
        if step == 1:
            reset_peak(self._device)
        else:
            self.seconds.append(now - self._started)
            self.passes.append((self._counted.forward, self._counted.backward))
            self.peak = max(self.peak, peak_memory(self._device))
        self._counted.forward = self._counted.backward = 0
        self._started = time.perf_counter()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes since the last reset; on a CPU those of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
    if line is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(line.split()[1]) * 1024


def model_folder(arguments: argparse.Namespace, folder: Path) -> Path:
    """A configuration and a tokenizer; the weights are drawn when it is loaded."""
    tokenizer = builtin_tokenizer()
    LlamaConfig(
        vocab_size=arguments.vocabulary,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.intermediate,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        num_key_value_heads=arguments.key_value_heads or arguments.heads,
        max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_items(count: int, length: int, vocabulary: int) -> list[Item]:
    """Rows of random words, of full length, after one special token."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for number in range(count):
        ids = [2, *torch.randint(10, vocabulary, (length - 1,), generator=generator).tolist()]
        inside = [False, *[True] * (length - 1)]
        places = list(range(length))
        row = Row(str(number), ("",), label=LABELS[number % 2])
        offsets = [(0, 0)] * length
        items.append(
            Item(ids, [0] * length, inside, [0] * length, places, offsets, number % 2, None, row)
        )
    return items


def timed(call: Callable[[], object], device: torch.device, rounds: int) -> tuple[float, int]:
    """The median of the seconds of ``call``, after a first one, and the peak of memory."""
    call()
    synchronise(device)
    reset_peak(device)
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds), peak_memory(device)


def peft_alone(backbone: Backbone, batch: Batch, rounds: int) -> dict[str, float]:
    """A step of cross-entropy, and a forward without gradients, by transformers and peft."""
    adapted = backbone.adapter
    assert adapted is not None
    backbone.model.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(trainable(backbone.learnable, True), lr=1e-5)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long()}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        adapted(**inputs, labels=batch.labels, use_cache=False).loss.backward()
        optimizer.step()

    @torch.no_grad()
    def forward() -> object:
        return adapted(**inputs, use_cache=False).logits

    seconds, peak = timed(step, backbone.device, rounds)
    alone, _ = timed(forward, backbone.device, rounds)
    backbone.model.set_attn_implementation("ivra")
    return {"step_seconds": seconds, "forward_seconds": alone, "peak_bytes": peak}


def explanation(backbone: Backbone, batch: Batch, rounds: int) -> float:
    """Seconds of a prediction with its explanation."""
    module = InterpretableAttention(backbone.sizes, ("feature", "head", "layer", "value"))
    module.to(backbone.device)

    @torch.no_grad()
    def run() -> object:
        encoding = backbone.encode(batch, module)
        return module(encoding.readings, batch.explainable, encoding.classes)

    return timed(run, backbone.device, rounds)[0]


def one_pass(backbone: Backbone, arguments: argparse.Namespace) -> dict[str, float]:
    """FLOPs and bytes of weights of one forward pass, on paper."""
    config = backbone.model.config
    inner, hidden = config.intermediate_size, config.hidden_size
    shared = config.num_key_value_heads / config.num_attention_heads
    weights = config.num_hidden_layers * hidden * (hidden * (2 + 2 * shared) + 3 * inner)
    tokens = arguments.rows * arguments.length
    attention = 4 * config.num_hidden_layers * tokens * arguments.length * hidden
    return {"flops": 2 * weights * tokens + attention, "weight_bytes": weights * arguments.bits / 8}


def measured(config: TrainConfig, backbone: Backbone, items: list[Item]) -> tuple[Clock, int]:
    """A stage 2, and the number of students it had."""
    passes = Passes()
    clock = Clock(backbone.device, passes)
    encoder = Encoder(backbone, config.max_length, config.batch_size)
    module = InterpretableAttention(backbone.sizes, config.levels).to(backbone.device)
    valid = items[: config.batch_size]
    stage = CriteriaStage(config, encoder, module, items, valid, (clock,))
    seen = [backbone]
    for criterion in stage.criteria:
        seen += [s.backbone for s in getattr(getattr(criterion, "student", None), "students", ())]
    handles = [passes.watch(one) for one in seen]
    stage.run()
    for handle in handles:
        handle.remove()
    return clock, len(seen) - 1


def figures(
    criteria: str,
    clock: Clock,
    alone: dict[str, float],
    paper: dict[str, float],
    recomputes: bool,
    tokens: int,
) -> dict[str, object]:
    """What was measured of a mixture, beside its floors."""
    seconds = statistics.median(clock.seconds)
    forward, backward = (statistics.median(part) for part in zip(*clock.passes, strict=True))
    floor = needed(criteria)
    both, rest = floor["with_backward"], floor["forward_alone"]
    least = both * alone["step_seconds"] + rest * alone["forward_seconds"]
    passes = both * (3 if recomputes else 2) + rest
    return {
        "step_seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "peak_bytes": clock.peak,
        "passes": {"forward": forward, "backward": backward},
        "floor": {
            **floor,
            "seconds": least,
            "flops": passes * paper["flops"],
            "weight_bytes": passes * paper["weight_bytes"],
        },
        "over_floor": seconds / least,
        "peft_alone": alone,
        "over_peft_alone": seconds / alone["step_seconds"],
    }


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    shape = {"layers": 32, "hidden": 4096, "intermediate": 11008, "heads": 32, "vocabulary": 32000}
    for name, default in (*shape.items(), ("rows", 64), ("length", 128), ("steps", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--key-value-heads", type=int, help="default: as many as heads")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=8)
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--no-checkpointing", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def config_of(arguments: argparse.Namespace, criteria: str, folder: Path) -> TrainConfig:
    return TrainConfig(
        criteria=criteria,
        options={"sim": {"practice": PRACTICE}} if "sim" in criteria else {},
        model=str(folder),
        lora=True,
        load_in_8bit=arguments.bits == 8,
        load_in_4bit=arguments.bits == 4,
        dtype=arguments.dtype,
        gradient_checkpointing=not arguments.no_checkpointing,
        train="both",
        max_length=arguments.length,
        batch_size=arguments.rows,
        max_steps=arguments.steps + 1,
        epochs=1000.0,
        validations=1,
        validation_rows=arguments.rows,
        student_rows=arguments.rows,
    )


def main() -> None:
    arguments = parsed()
    tokens = arguments.rows * arguments.length
    with tempfile.TemporaryDirectory() as temporary:
        folder = model_folder(arguments, Path(temporary))
        config = config_of(arguments, "cons", folder)
        backbone = load_backbone(
            str(folder),
            LABELS,
            random_weights=True,
            loading=config.loading,
            device=arguments.device,
        )
        items = random_items(3 * arguments.rows, arguments.length, arguments.vocabulary)
        encoder = Encoder(backbone, arguments.length, arguments.rows)
        batch = next(encoder.batches(items))
        alone = peft_alone(backbone, batch, arguments.steps)
        explained = explanation(backbone, batch, arguments.steps)
        paper = one_pass(backbone, arguments)
        found, students = {}, 0
        for criteria in MIXTURES:
            config = config_of(arguments, criteria, folder)
            before = peft_alone(backbone, batch, arguments.steps)
            clock, own = measured(config, backbone, items)
            after = peft_alone(backbone, batch, arguments.steps)
            students = max(students, own)
            beside = {key: (before[key] + after[key]) / 2 for key in before}
            found[criteria] = figures(
                criteria, clock, beside, paper, config.gradient_checkpointing, tokens
            )
            print(f"{criteria:20} {found[criteria]['step_seconds']:8.3f} s", end="  ")
            print(f"{found[criteria]['over_floor']:6.3f} x its floor")
    report = {
        "command": " ".join(["python benchmarks/large.py", *sys.argv[1:]]),
        "shape": {k: v for k, v in vars(arguments).items() if k not in ("json", "device")},
        "tokens_per_step": tokens,
        "parameters_learnt": sum(p.numel() for p in backbone.learnable),
        "students_at_once": students,
        "one_forward_pass": paper,
        "peft_alone": alone | {"tokens_per_second": tokens / alone["step_seconds"]},
        "explanation": {
            "seconds": explained,
            "over_plain_forward": explained / alone["forward_seconds"],
        },
        "criteria": found,
        "environment": environment(backbone),
        "versions": versions(),
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(arguments.json, report)


if __name__ == "__main__":
    main()
