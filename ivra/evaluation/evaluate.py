"""``evaluate``: every figure of a run beside what it must be compared with."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ivra.backbones import Backbone
from ivra.data import Item, Row, fingerprint
from ivra.errors import IvraError, unknown_name
from ivra.evaluation.agreement import TOKEN_KEYS, WORD_KEYS, plausibility_figures
from ivra.evaluation.answers import answer_columns, answer_figures, answers_against_plain
from ivra.evaluation.aopc import aopc, important_tokens
from ivra.evaluation.bootstrap import LEVEL
from ivra.evaluation.concentration import normalised_entropy, saliency_entropy, support_size
from ivra.evaluation.config import DEFAULTS, METRICS, EvalConfig
from ivra.evaluation.consistency import BATCH_ROWS, batch_correlations, mean_correlation
from ivra.evaluation.downstream import accuracy_figures, against_plain
from ivra.evaluation.plausibility import MATCH, marked_share, token_units, word_units
from ivra.evaluation.prediction import TOKEN_BUDGET, predict, token_scores
from ivra.evaluation.sheet import Sheet
from ivra.evaluation.students import add_simulation
from ivra.explainers import Explainer, ModuleExplainer, static_explainer, to_simplex
from ivra.shapes import Outputs
from ivra.training import Run, environment, load_plain, read_splits, versions
from ivra.training.task import read_part


def evaluate(
    run: Run,
    config: EvalConfig = DEFAULTS,
    progress: Callable[[str], None] = lambda what: None,
) -> dict[str, object]:
    """Measure a run.

    Returns:
        A JSON-ready mapping. ``figures[explainer][metric]`` holds the numbers - ``comp`` and
        ``suff`` (AOPC, differences of probabilities), ``sim`` (median share of rows), ``cons``
        (Spearman's rho), ``plausibility`` (AUC) - or ``None`` where one is undefined, with the
        reason in ``undefined``; ``figures[explainer]["intervals"]`` their 95 % intervals.
        ``tests`` compares students. ``accuracy`` (or ``answers``) holds the model's own.
        ``settings``, ``versions``, ``seed``, ``config`` and the data's fingerprint say where they
        come from.

    Raises:
        IvraError: data that cannot be read, or a metric asked for that the data does not allow.
    """
    started = time.time()
    backbone = run.backbone.eval()
    rows, source = evaluation_rows(run, config)
    labelled = all(backbone.task.knows(row) for row in rows)
    windows = run.encoder.items(rows, labelled=labelled)
    metrics, reasons = _metrics(run, config, windows, labelled)
    explainers = _explainers(run, config)
    progress("predictions")
    items, logits = predicted(backbone, windows, config.token_budget)
    sheet = Sheet(run, config, items, explainers, progress)
    sheet.undefined |= reasons
    result: dict[str, object] = {
        "run": run.name,
        "model": run.config.model,
        "criteria": run.config.criteria,
        "data": {
            "source": source,
            "split": config.split,
            "rows": len(rows),
            "sha256": fingerprint(rows),
        },
        "figures": sheet.figures,
        "undefined": sheet.undefined,
        "tests": sheet.tests,
    }
    result |= _measured(sheet, metrics, windows, logits)
    return result | {
        "settings": _settings(run, config) | sheet.settings,
        "seed": config.seed,
        "config": run.config.model_dump(mode="json"),
        "training": {
            key: run.record.get(key) for key in ("data", "seed", "versions", "environment")
        },
        "versions": versions(),
        "environment": environment(backbone),
        "seconds": round(time.time() - started, 1),
    }


def evaluation_rows(run: Run, config: EvalConfig) -> tuple[list[Row], str]:
    """The rows to judge on, and where they come from."""
    if config.data is not None:
        rows, source = read_part(run.config, config.data, config.split), config.data
    else:
        splits = read_splits(run.config)
        parts = {"train": splits.train, "dev": splits.valid, "test": splits.test}
        if config.split not in parts:
            raise unknown_name("split", config.split, list(parts))
        rows, source = parts[config.split], run.config.eval_data or run.config.data
    return rows[: config.rows], source


def predicted(
    backbone: Backbone, windows: Sequence[Item], budget: int = TOKEN_BUDGET
) -> tuple[list[Item], Outputs]:
    """Of every row the item that its prediction is read from, and the logits of these."""
    logits = predict(backbone, windows, budget)
    chosen = backbone.task.chosen(windows, logits)
    return [windows[place] for place in chosen], logits[chosen]


def _measured(
    sheet: Sheet, metrics: Sequence[str], windows: Sequence[Item], logits: Outputs
) -> dict[str, object]:
    """Puts the metrics of the explainers on the sheet, and gives what is the model's own."""
    backbone, found = sheet.run.backbone, dict[str, object]()
    if "accuracy" in metrics:
        if backbone.task.has_classes:
            found["accuracy"] = _accuracy(sheet, logits)
        else:
            found["answers"] = _answers(sheet, windows, logits)
    if {"aopc", "plausibility", "entropy"} & set(metrics):
        sheet.progress("explanations")
        tokens = sheet.config.explain_batch_tokens
        scores = {e.name: token_scores(e, backbone, sheet.items, tokens) for e in sheet.explainers}
        if "aopc" in metrics:
            _aopc(sheet, scores, logits)
        if "plausibility" in metrics:
            _plausibility(sheet, scores)
        if "entropy" in metrics:
            _entropy(sheet, scores)
    if "cons" in metrics:
        _consistency(sheet)
    if "sim" in metrics:
        add_simulation(sheet)
    return found


def _metrics(
    run: Run, config: EvalConfig, items: Sequence[Item], labelled: bool
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics asked for, or all that the data allows, and why others are never allowed."""
    task = run.backbone.task
    annotated = any(item.rationale is not None for item in items)
    reasons = {}
    if not labelled:
        reasons["accuracy"] = f"{task.gold_name} in every row"
    if not annotated:
        reasons["plausibility"] = "rows with a 'rationale'"
    for metric in config.metrics:
        if metric in reasons:
            raise IvraError(
                f"metric '{metric}' needs {reasons[metric]}, which the data does not have: leave "
                "it out, or choose other data"
            )
    if config.metrics:
        return config.metrics, {}
    never = {metric: why for metric, why in task.unmeasured.items() if metric in reasons}
    return tuple(metric for metric in METRICS if metric not in reasons), never


def _explainers(run: Run, config: EvalConfig) -> list[Explainer]:
    tokens = config.explain_batch_tokens
    static = [static_explainer(name, config.seed, tokens) for name in config.explainers]
    for explainer in static:
        explainer.check(run.backbone)
    own = run if config.preference is None else run.preferring(config.preference)
    return [ModuleExplainer(own.module), *static]


def _accuracy(sheet: Sheet, logits: Outputs) -> dict[str, object]:
    run, items, classes = sheet.run, sheet.items, sheet.run.backbone.sizes.classes
    gold = [item.label for item in items]
    said = logits.argmax(-1).tolist()

    def compare(plain: Backbone) -> dict[str, object]:
        same = plain is run.backbone
        before = said if same else predict(plain, items).argmax(-1).tolist()
        return against_plain(gold, said, before, classes, sheet.bootstrap)

    found = accuracy_figures(gold, said, classes, sheet.bootstrap)
    return found | _beside_plain(run, compare)


def _answers(sheet: Sheet, windows: Sequence[Item], logits: Outputs) -> dict[str, object]:
    run, task = sheet.run, sheet.run.backbone.task
    columns = answer_columns(task, sheet.items, logits)

    def compare(plain: Backbone) -> dict[str, object]:
        same = plain is run.backbone
        before = columns if same else answer_columns(task, *predicted(plain, windows))
        return answers_against_plain(columns, before, sheet.bootstrap)

    return answer_figures(columns, sheet.bootstrap) | _beside_plain(run, compare)


def _beside_plain(run: Run, compare: Callable[[Backbone], dict[str, object]]) -> dict[str, object]:
    """What training said, and the figures of the plain model, if the run kept it."""
    found: dict[str, object] = {"training": run.record.get(run.backbone.task.measure)}
    plain = load_plain(run)
    if plain is None:
        reason = "the run keeps no model from before the criteria: train it again to compare"
        return found | {"plain": None, "plain_note": reason}
    note = (
        "the criteria left the backbone alone: the plain model is the model"
        if plain is run.backbone
        else "the model after fine-tuning, before the criteria"
    )
    return found | {"plain": compare(plain), "plain_note": note}


def _aopc(sheet: Sheet, scores: dict[str, list[Tensor]], logits: Outputs) -> None:
    sheet.progress("AOPC")
    run, items, budget = sheet.run, sheet.items, sheet.config.token_budget
    settings = sheet.config.aopc.settled(run.backbone, run.config.bins)
    for name, found in aopc(run.backbone, items, scores, settings, logits, budget).items():
        important = important_tokens(items, scores[name], settings=settings)
        rows = {
            "comp": found.comp,
            "suff": found.suff,
            "clipped_comp": found.clipped_comp,
            "clipped_suff": found.clipped_suff,
            "norm_comp": found.norm_comp,
            "norm_suff": found.norm_suff,
            "important": important.share,
        }
        sheet.means(name, rows)
        sheet.figures[name] |= {
            "comp_by_bin": found.comp_by_bin,
            "suff_by_bin": found.suff_by_bin,
            "norm_comp_by_bin": found.norm_comp_by_bin,
            "norm_suff_by_bin": found.norm_suff_by_bin,
            "important_by_threshold": important.by_threshold,
        }


def _plausibility(sheet: Sheet, scores: dict[str, list[Tensor]]) -> None:
    sheet.progress("plausibility")
    share: dict[str, float | None] = {}
    for level, cut, keys in (
        ("tokens", token_units, TOKEN_KEYS),
        ("words", word_units, WORD_KEYS),
    ):
        for name, ranking in scores.items():
            both = zip(sheet.items, ranking, strict=True)
            units = [found for item, row in both if (found := cut(item, row)) is not None]
            figures, intervals, reasons = plausibility_figures(
                units, keys, sheet.config.recall_k, sheet.bootstrap
            )
            sheet.add(name, figures, intervals)
            sheet.undefined |= reasons
            share[level] = marked_share(units)
    sheet.settings["plausibility"] = {
        "recall_k": list(sheet.config.recall_k),
        "hard_rationale": "top max(1, ceil(marked_share * N)) of the N tokens or words",
        "marked_share": share,
        "iou_match": MATCH,
        "word_score": "sum over its tokens",
    }


def _entropy(sheet: Sheet, scores: dict[str, list[Tensor]]) -> None:
    sheet.progress("entropy")
    pad = torch.nn.utils.rnn.pad_sequence
    explainable = pad([torch.tensor(item.explainable) for item in sheet.items], True)
    for explainer in sheet.explainers:
        saliency = pad(scores[explainer.name], True).double()
        if not explainer.is_saliency:
            saliency = to_simplex(saliency, explainable)
        entropy = saliency_entropy(saliency, explainable)
        share = normalised_entropy(saliency, explainable)
        columns = {
            "entropy": entropy,
            "entropy_normalised": share[~share.isnan()],
            "effective_tokens": entropy.exp(),
            "support": support_size(saliency, explainable),
        }
        sheet.means(explainer.name, columns)
        if share.isnan().all():
            sheet.undefined["entropy_normalised"] = "every row has one token to explain"


def _consistency(sheet: Sheet) -> None:
    sheet.progress("consistency")
    found = batch_correlations(
        sheet.run.backbone,
        sheet.items,
        sheet.explainers,
        batch_tokens=sheet.config.explain_batch_tokens,
    )
    for name, rhos in found.items():
        defined = [rho for rho in rhos if rho is not None]
        figures = {
            "cons": mean_correlation(rhos),
            "cons_batches": len(defined),
            "cons_batches_undefined": len(rhos) - len(defined),
        }
        sheet.add(name, figures, sheet.bootstrap.of_means({"cons": defined}))
        if not defined:
            sheet.undefined["cons"] = "no batch of at least 3 rows with differing distances"


def _settings(run: Run, config: EvalConfig) -> dict[str, object]:
    preferred = {} if config.preference is None else {"preference": dict(config.preference)}
    return {
        **preferred,
        "aopc": config.aopc.settled(run.backbone, run.config.bins).described(),
        "cons": {
            "batch_rows": BATCH_ROWS,
            "saliency_distance": "KL, both sides mixed with 1e-4 of uniform, mean of directions",
            "hidden_distance": "L2 over tokens of the mean over layers",
        },
        "intervals": {
            "level": LEVEL,
            "method": "percentile bootstrap over rows (cons: over batches)",
            "resamples": config.resamples,
        },
    }
