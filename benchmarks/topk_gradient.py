"""Gradients through the cut at k percent, against that of the true hard objective.

    python benchmarks/topk_gradient.py --json benchmarks/results/topk_gradient.json

The loss of comp or suff (form ``difference``) is piecewise constant in the token scores
``s = log r``: its own gradient is zero almost everywhere. What stands in for it is the gradient of
the loss averaged over scores nearby, ``E_z[loss(s + width z)]`` with ``z`` standard normal, from
antithetic pairs of forward passes with hard cuts:

    g = mean over z of (loss(s + width z) - loss(s - width z)) z / (2 width)

a finite difference of the hard objective in random directions (``--pairs`` of them). Each gradient
through the cut is compared with ``g`` by the cosine over a row's tokens, all in the scores ``s``.
How far ``g`` is itself from exact is told by the cosine between two halves of its pairs, from
which the cosine that an exact gradient would have with ``g`` follows (Spearman-Brown, square root).

Then the attention module is trained with each, for comp and for suff, from one fine-tuned model a
seed, and judged by AOPC on the validation rows. Built-in data, tiny ELECTRA. ``python
benchmarks/tables.py`` writes the table into docs/criteria.md.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ivra.data import Batch
from ivra.losses import (
    AOPC_BINS,
    comprehensiveness_loss,
    sampled_loss,
    soft_top_k,
    sufficiency_loss,
    top_k,
)
from ivra.storage import write_json_atomic
from ivra.training import Encoder, TrainConfig, load_run, read_splits, train, versions

LOSSES = {"comp": comprehensiveness_loss, "suff": sufficiency_loss}


@dataclass(frozen=True)
class Way:
    """A gradient through the cut, with its parameters."""

    gradient: str
    temperature: float = 1.0
    samples: int = 8

    @property
    def name(self) -> str:
        if self.gradient == "straight-through":
            return self.gradient
        drawn = self.gradient in ("perturbed", "sampled")
        samples = f", {self.samples} samples" if drawn else ""
        return f"{self.gradient}, T = {self.temperature:g}{samples}"


WAYS = (
    Way("straight-through"),
    *(Way("sigmoid", t) for t in (0.25, 1.0)),
    *(Way("entropic", t) for t in (0.25, 1.0)),
    *(Way("perturbed", t) for t in (0.25, 1.0)),
    Way("perturbed", 1.0, 128),
    *(Way("sampled", t, n) for t in (0.25, 1.0) for n in (2, 8, 32)),
)
TRAINED = (
    Way("straight-through"),
    Way("sigmoid"),
    Way("entropic"),
    Way("perturbed"),
    Way("sampled", samples=2),
    Way("sampled"),
)


def finetuned(runs: Path, seed: int) -> str:
    """The folder of a tiny ELECTRA fine-tuned on the built-in data; made once a seed."""
    folder = runs / f"finetuned-seed{seed}"
    if not (folder / "run.json").is_file():
        config = TrainConfig(criteria="suff", seed=seed, max_steps=1, validations=1)
        train(config, output=runs, name=folder.name)
    return str(folder / "model")


class Objective:
    """The loss of a batch's rows as a function of the scores of their tokens, at one ``k``."""

    def __init__(self, encoder: Encoder, batch: Batch, criterion: str, percent: float) -> None:
        self.backbone = encoder.backbone
        self.batch = batch
        self.criterion = criterion
        self.percent = percent
        with torch.no_grad():
            self.logits = self.backbone.encode(batch).logits

    def at(self, cut: Tensor) -> Tensor:
        keep = cut if self.criterion == "suff" else 1 - cut
        reduced = self.backbone.rerun(self.batch, keep, "attention")
        return LOSSES[self.criterion](self.logits, reduced, "difference")

    def hard(self, scores: Tensor) -> Tensor:
        return self.at(top_k(scores, self.batch.explainable, self.percent).to(scores))

    @torch.no_grad()
    def smoothed(self, scores: Tensor, width: float, pairs: int, seed: int) -> Tensor:
        """Two independent halves of the reference gradient, ``(2, B, L)``."""
        generator = torch.Generator().manual_seed(seed)
        halves = torch.zeros(2, *scores.shape)
        for number in range(pairs):
            z = torch.randn(scores.shape, generator=generator) * self.batch.explainable
            swing = self.hard(scores + width * z) - self.hard(scores - width * z)
            halves[number % 2] += swing[:, None] * z / (2 * width)
        return halves / (pairs / 2)

    def through(self, scores: Tensor, way: Way, seed: int) -> Tensor:
        """The gradient that ``way`` gives to the scores."""
        scores = scores.clone().requires_grad_()
        saliency = scores.masked_fill(~self.batch.explainable, -torch.inf).softmax(-1)
        generator = torch.Generator().manual_seed(seed)
        row = (saliency, self.batch.explainable, self.percent)
        draws = (way.temperature, way.samples, generator)
        if way.gradient == "sampled":
            loss = sampled_loss(*row, self.at, *draws)
        else:
            loss = self.at(soft_top_k(*row, way.gradient, *draws))
        (found,) = torch.autograd.grad(loss.sum(), scores)
        return found


def centred(gradient: Tensor, explainable: Tensor) -> Tensor:
    """Without its mean over a row's tokens: a shift of all scores changes no cut."""
    mean = (gradient * explainable).sum(-1, keepdim=True) / explainable.sum(-1, keepdim=True)
    return (gradient - mean) * explainable


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=1e-20)


def cosines(encoder: Encoder, batch: Batch, scores: Tensor, width: float, pairs: int) -> dict:
    """Mean cosine over rows of the gradient summed over all bins, for both criteria."""
    found: dict[str, dict[str, float]] = {}
    for criterion in LOSSES:
        objectives = [Objective(encoder, batch, criterion, percent) for percent in AOPC_BINS]
        halves = sum(o.smoothed(scores, width, pairs, seed) for seed, o in enumerate(objectives))
        first, second = (centred(half, batch.explainable) for half in halves)
        reference = first + second
        moved = reference.norm(dim=-1) > 0
        agreement = cosine(first, second)[moved].mean().item()
        figures = {"ceiling": math.sqrt(2 * agreement / (1 + agreement)) if agreement > 0 else 0.0}
        for way in WAYS:
            gradient = sum(o.through(scores, way, 100 + n) for n, o in enumerate(objectives))
            values = cosine(centred(gradient, batch.explainable), reference)[moved]
            figures[way.name] = values.mean().item()
        found[criterion] = figures | {"rows": int(moved.sum())}
    return found


def scores_of(run: object, batch: Batch) -> Tensor:
    """``log r`` of a run's module, at a floor where a token is not explainable."""
    with torch.no_grad():
        encoding = run.backbone.encode(batch, run.module)
        saliency = run.module(encoding.readings, batch.explainable, encoding.predictions)
    return saliency.clamp_min(1e-30).log()


def trained(model: str, runs: Path, criterion: str, way: Way, seed: int, steps: int) -> float:
    """AOPC on the validation rows after training with one gradient."""
    name = f"{criterion}-{way.name.replace(' ', '').replace(',', '-')}-seed{seed}"
    if (runs / name / "run.json").is_file():
        run = load_run(runs / name)
    else:
        config = TrainConfig(
            criteria=criterion,
            model=model,
            seed=seed,
            finetune="never",
            max_steps=steps,
            epochs=100,
            validations=3,
            validation_rows=200,
            topk_gradient=way.gradient,
            options={criterion: {"temperature": way.temperature, "samples": way.samples}},
        )
        run = train(config, output=runs, name=name)
    return run.record["criteria"]["best"][criterion]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/topk_gradient.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/topk_gradient"))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--widths", default="0.25,1")
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    widths = [float(width) for width in arguments.widths.split(",")]
    result: dict = {
        "data": "builtin",
        "model": "tiny-electra fine-tuned on it",
        "seeds": seeds,
        "rows_a_seed": arguments.rows,
        "pairs": arguments.pairs,
        "bins_percent": list(AOPC_BINS),
        "form": "difference",
        "widths": widths,
        "steps": arguments.steps,
        "cosines": {f"{width:g}": [] for width in widths},
        "trained": {way.name: {c: [] for c in LOSSES} for way in TRAINED},
        "versions": versions(),
    }
    for seed in seeds:
        model = finetuned(arguments.runs, seed)
        run = load_run(Path(model).parent)
        encoder = Encoder(run.backbone.eval(), run.config.max_length, arguments.rows)
        items = encoder.items(read_splits(run.config).valid[: arguments.rows])
        batch = next(iter(encoder.batches(items)))
        for parameter in run.backbone.parameters():
            parameter.requires_grad_(False)
        scores = scores_of(run, batch)
        for width in widths:
            found = cosines(encoder, batch, scores, width, arguments.pairs)
            result["cosines"][f"{width:g}"].append(found)
            print("seed", seed, "width", width, found, flush=True)
        for criterion in LOSSES:
            for way in TRAINED:
                after = trained(model, arguments.runs, criterion, way, seed, arguments.steps)
                result["trained"][way.name][criterion].append(after)
                print("seed", seed, criterion, way.name, after, flush=True)
    write_json_atomic(arguments.json, result)


if __name__ == "__main__":
    main()
