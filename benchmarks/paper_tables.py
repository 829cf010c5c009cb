"""What ``docs/results.md`` shows: the paper's tables from the cells in ``results/paper``."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ivra.studies import Summary, markdown, summary_of

CELLS = Path(__file__).parent / "results" / "paper"
LEVELS = Path(__file__).parent / "results" / "levels"
IMPORTANT = Path(__file__).parent / "results" / "important"
BATCHING = Path(__file__).parent / "results" / "sim_batching"
LENGTHS = Path(__file__).parent / "results" / "lengths"
NORMS = Path(__file__).parent / "results" / "norms"
STATIC = {
    "none": "no explanation",
    "random": "random",
    "untrained": "untrained module",
    "attention": "mean attention",
    "attention-last": "last-layer attention",
    "input-x-gradient": "Input x Gradient",
    "integrated-gradients": "Integrated Gradients, 50 steps",
    "occlusion": "occlusion",
    "lime": "LIME, 500 texts",
    "lime:samples=100": "LIME, 100 texts",
}
OF_PAPER = (
    "attention",
    "attention-last",
    "input-x-gradient",
    "integrated-gradients",
    "lime",
    "lime:samples=100",
)
METHODS = {
    "smat": "SMaT",
    "ivra-softmax": "IvRA-softmax",
    "ivra-sparsemax": "IvRA-sparsemax",
    "ivra-value": "ivra with values",
    "ivra-fidelity": "ivra with values and 64 hidden units, 400 steps",
}
PASSES = {
    "lime": "501",
    "occlusion": "tokens + 2",
    "integrated-gradients": "51, 50 backward",
    "input-x-gradient": "2, 1 backward",
    "untrained": "1",
    "attention": "1",
    "attention-last": "1",
    "random": "0",
}
"""Forward passes a row of each explainer, as docs/explainers.md says."""
BETTER = {"comp": 1, "suff": -1, "cons": 1, "sim": 1}
TITLES = {
    "sim": "SIM (higher is better), table 1",
    "comp": "COMP (higher is better), table 2",
    "suff": "SUFF (lower is better), table 3",
    "cons": "CONS (higher is better), table 4",
}


class Made(NamedTuple):
    """A cell's file, and what its name says."""

    data: str
    method: str | None
    criterion: str | None
    result: dict[str, Any]


def cells(folder: Path = CELLS) -> list[Made]:
    """Every cell of the studies in a folder, by name."""
    found = []
    for path in sorted(folder.glob("*/cells/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        _, data, *rest = result["cell"]["group"].split("_")
        method, criterion = rest if len(rest) == 2 else (None, None)
        found.append(Made(data, method, criterion, result))
    return found


def explained(made: Iterable[Made], data: str, name: str, metric: str) -> Summary:
    """A figure of an explainer without training."""
    return summary_of(
        one.result["figures"][name].get(metric)
        for one in made
        if one.data == data and one.method is None and name in one.result["figures"]
    )


def trained(made: Iterable[Made], data: str, method: str, criterion: str, metric: str) -> Summary:
    """A figure of a trained method over seeds."""
    place = (data, method, criterion)
    return summary_of(
        one.result["figures"]["ivra"].get(metric)
        for one in made
        if (one.data, one.method, one.criterion) == place
    )


def shown(summary: Summary) -> str:
    """Mean and standard error."""
    if summary.mean is None:
        return "-"
    error = "" if summary.error is None else f" ± {summary.error:.3f}"
    return f"{summary.mean + 0.0:.3f}{error}"


def table(made: list[Made], metric: str, criteria: tuple[str, ...]) -> str:
    """Explainers and methods by data set, on one figure; methods once a criterion trained for."""
    sets = list(dict.fromkeys(one.data for one in made if one.criterion in criteria))
    if not sets:
        return ""
    lines: list[tuple[str, list[Summary]]] = [
        (title, [explained(made, data, name, metric) for data in sets])
        for name, title in STATIC.items()
    ]
    for method, title in METHODS.items():
        for criterion in criteria:
            label = f"{title}, trained for `{criterion}`"
            row = [trained(made, data, method, criterion, metric) for data in sets]
            lines.append((label, row))
    lines = [(label, row) for label, row in lines if any(s.mean is not None for s in row)]
    rows = []
    for label, row in lines:
        marked = [_marked(s, [other[i] for _, other in lines], metric) for i, s in enumerate(row)]
        rows.append([label, *marked])
    return f"### {TITLES[metric]}\n\n" + markdown(["", *sets], rows)


def _marked(summary: Summary, column: list[Summary], metric: str) -> str:
    means = [s.mean for s in column if s.mean is not None]
    best = max(means, key=lambda mean: BETTER[metric] * mean)
    text = shown(summary)
    return f"**{text}**" if summary.mean == best else text


def orderings(made: list[Made]) -> str:
    """Which of the paper's orderings came out, each method trained for the figure."""
    rows = []
    for metric in BETTER:
        for data in dict.fromkeys(one.data for one in made if one.criterion == metric):
            of = {name: trained(made, data, name, metric, metric) for name in METHODS}
            known = {name: explained(made, data, name, metric) for name in OF_PAPER}
            static = [s for s in known.values() if s.mean is not None]
            ours = [of[name] for name in ("ivra-softmax", "ivra-sparsemax")]
            soft, sparse = ours
            first, second = (soft, sparse) if metric == "comp" else (sparse, soft)
            rows.append(
                [
                    f"{metric}, {data}",
                    _compared(_best(ours, metric), of["smat"], metric),
                    _compared(of["smat"], _best(static, metric), metric),
                    _compared(first, second, metric),
                    _compared(of["ivra-value"], _best(static, metric), metric),
                ]
            )
    header = [
        "figure, data",
        "IvRA better than SMaT",
        "SMaT better than all static explainers",
        "softmax better than sparsemax (COMP), sparsemax better (others)",
        "ivra with values better than all static explainers",
    ]
    return markdown(header, rows) if rows else ""


def _best(summaries: list[Summary], metric: str) -> Summary:
    known = [s for s in summaries if s.mean is not None]
    if not known:
        return summary_of([])
    return max(known, key=lambda s: BETTER[metric] * (s.mean or 0.0))


def _compared(one: Summary, other: Summary, metric: str) -> str:
    """Yes or no, with both figures; "within error" where their standard errors overlap."""
    if one.mean is None or other.mean is None:
        return "-"
    ahead = BETTER[metric] * (one.mean - other.mean)
    apart = abs(one.mean - other.mean) > (one.error or 0.0) + (other.error or 0.0)
    word = ("yes" if ahead > 0 else "no") + ("" if apart else ", within error")
    return f"{word} ({shown(one)}, {shown(other)})"


SETS = {"sst2": "SST-2", "esnli": "e-SNLI", "imdb": "IMDb"}
"""Those whose table of one pass against hundreds is shown, by the name their authors give them."""


def one_pass(data: str) -> str:
    """One forward pass against hundreds, COMP and SUFF side by side."""
    made = [one for one in cells() if one.data == data]
    static = next((one.result for one in made if one.method is None), None)
    if static is None:
        return ""
    rows = [
        [STATIC[name], PASSES[name], *(explained(made, data, name, m) for m in ("comp", "suff"))]
        for name in PASSES
        if name in static["figures"]
    ]
    for criterion in ("fidelity", "comp", "suff"):
        both = [trained(made, data, "ivra-value", criterion, m) for m in ("comp", "suff")]
        if both[0].mean is not None:
            rows.append([f"ivra, trained for `{criterion}`", "1", *both])
    rows.sort(key=lambda row: row[2].mean, reverse=True)
    lines = [[name, passes, shown(comp), shown(suff)] for name, passes, comp, suff in rows]
    seeds = sorted({one.result["config"]["seed"] for one in made if one.method == "ivra-value"})
    return (
        f"MiniLM (6 layers) fine-tuned on {SETS[data]} and frozen, seeds "
        f"{', '.join(map(str, seeds))} of training the module: mean and standard "
        "error. AOPC by deletion on the first "
        f"{static['data']['rows']} test rows; *passes* are forward passes a row. "
        "[docs/results.md](docs/results.md) has the commands and all that was compared.\n\n"
        + markdown(["explanation", "passes", "COMP (higher is better)", "SUFF (lower)"], lines)
    )


def facts(made: list[Made]) -> str:
    """How each set was learnt and judged, from the files."""
    rows = []
    for data in dict.fromkeys(one.data for one in made):
        own = [one for one in made if one.data == data]
        static = next((one for one in own if one.method is None), own[0]).result
        trainings = [one.result["config"] for one in own if one.method is not None]
        seeds = sorted({config["seed"] for config in trainings})
        base = static["config"]
        kind = "accuracy" if "accuracy" in static["training"] else "exact_match"
        judged = f"{static['training'][kind]['before']:.3f} on {base['validation_rows']} rows"
        rows.append(
            [
                data,
                f"{base['finetune_epochs']:g}",
                judged if kind == "accuracy" else f"{judged}, exact match",
                str(base["max_length"]),
                ", ".join(sorted({str(config["max_steps"]) for config in trainings})),
                str(base["batch_size"]),
                str(static["data"]["rows"]),
                ", ".join(map(str, seeds)),
            ]
        )
    header = [
        "data",
        "epochs of fine-tuning",
        "dev accuracy",
        "most tokens",
        "steps of the module",
        "rows a step",
        "test rows judged",
        "seeds",
    ]
    return markdown(header, rows)


def trials() -> str:
    """Fidelity beside comp, where such choices are made: on dev rows."""
    rows = []
    for path in sorted((CELLS.parent / "fidelity").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        config, own = result["config"], result["figures"]["ivra"]
        rows.append(
            [
                config["criteria"],
                str(config["value_hidden"]),
                str(config["max_steps"]),
                f"{own['comp']:.3f}",
                f"{own['suff']:.3f}",
                ", ".join(f"{value:.2f}" for value in own["comp_by_bin"]),
            ]
        )
    header = ["trained for", "hidden units", "steps", "COMP", "SUFF", "COMP by bin"]
    return markdown(header, rows) if rows else ""


def _beside(
    made: list[Made], data: str, metrics: Iterable[str], criteria: Iterable[str]
) -> list[list[str]]:
    """A row an explainer and a row a method and criterion, with the figures ``metrics``."""
    metrics = tuple(metrics)
    rows = [
        [title, *(shown(explained(made, data, name, m)) for m in metrics)]
        for name, title in STATIC.items()
    ]
    for method, title in METHODS.items():
        for criterion in criteria:
            figures = (trained(made, data, method, criterion, m) for m in metrics)
            rows.append([f"{title}, trained for `{criterion}`", *map(shown, figures)])
    return [row for row in rows if row[1] != "-"]


def plausibility() -> str:
    """Table 6: agreement with human rationales, where a set has them."""
    made = [one for one in cells() if "plausibility" in next(iter(one.result["figures"].values()))]
    metrics = {"plausibility": "AUC", "average_precision": "average precision"}
    return _by_data(made, metrics, BETTER)


def _by_data(made: list[Made], metrics: dict[str, str], criteria: Iterable[str]) -> str:
    """A table a data set; ``metrics`` are figures and the heads of their columns."""
    return "\n".join(
        markdown([data, *metrics.values()], _beside(made, data, metrics, criteria))
        for data in dict.fromkeys(one.data for one in made)
    )


def levels() -> str:
    """Figure 6: which levels of the module are trained, on the data sets it was run on."""
    made = cells(LEVELS)
    sets = dict.fromkeys(one.data for one in made)
    columns = [(data, metric) for data in sets for metric in ("comp", "suff")]
    if not columns:
        return ""
    names = dict.fromkeys(one.method for one in made if one.method is not None)
    rows = [
        [name.replace("+", ", "), *(shown(trained(made, d, name, m, m)) for d, m in columns)]
        for name in sorted(names, key=lambda name: (name.count("+"), name))
    ]
    start = [shown(explained(made, d, "untrained", m)) for d, m in columns]
    header = [f"{m.upper()}, {SETS.get(d, d)}, trained for `{m}`" for d, m in columns]
    return markdown(["levels trained", *header], [*rows, ["none (untrained)", *start]])


def important() -> str:
    """Figure 7: how many tokens an explanation calls important, and what they do."""
    metrics = {"important": "important tokens", "comp": "COMP", "suff": "SUFF"}
    return _by_data(cells(IMPORTANT), metrics, ("comp",))


def batching() -> str:
    """SIM after training on batches of like length at the rate of the other tables, beside table 1,
    the same seeds of each."""
    other, made = cells(BATCHING), cells()
    rows = []
    for method, title in METHODS.items():
        old = [one for one in other if one.method == method]
        seeds = sorted({one.result["config"]["seed"] for one in old})
        same = [one for one in made if one.result["config"]["seed"] in seeds]
        pair = [trained(own, "sst2", method, "sim", "sim") for own in (old, same)]
        if old and pair[1].mean is not None:
            rows.append([title, ", ".join(map(str, seeds)), *map(shown, pair)])
    header = ["sst2", "seeds", "like length, learning rate 0.05", "any length, 0.01 (table 1)"]
    return markdown(header, rows) if rows else ""


def norms() -> str:
    """Softmax and sparsemax for coefficients and for the saliency, by learning rate.

    How many tokens have a share is told of the least rate, which is nearest to the start.
    """
    made = cells(NORMS)
    named = [one.method.split("+") for one in made if one.method is not None]
    rates = sorted({rate for *_, rate in named}, key=float)
    pairs = sorted({(coefficients, saliency) for coefficients, saliency, _ in named})
    columns = [(metric, rate) for metric in ("comp", "suff") for rate in rates]
    header = ["coefficients", "saliency", "tokens above 0"]
    header += [f"{metric.upper()}, {rate}" for metric, rate in columns]
    tables = []
    for data in dict.fromkeys(one.data for one in made):
        rows = []
        for pair in pairs:
            found = [trained(made, data, "+".join((*pair, rate)), m, m) for m, rate in columns]
            support = trained(made, data, "+".join((*pair, rates[0])), "comp", "support")
            rows.append([*pair, f"{support.mean:.1f}", *map(shown, found)])
        start = [shown(explained(made, data, "untrained", m)) for m, _ in columns]
        support = explained(made, data, "untrained", "support")
        rows.append(["untrained", "softmax", f"{support.mean:.1f}", *start])
        tables.append(markdown([*header[:2], f"{header[2]}, {data}", *header[3:]], rows))
    return "\n".join(tables)


def lengths() -> str:
    """Figure 10: seconds of an explanation by the tokens of a row."""
    made = cells(LENGTHS)
    sizes = sorted({one.data for one in made}, key=int)
    if not sizes:
        return ""
    rows = [
        [title, *(explained(made, size, name, "explain_seconds").mean for size in sizes)]
        for name, title in STATIC.items()
    ]
    own = [trained(made, size, "ivra-softmax", "comp", "explain_seconds").mean for size in sizes]
    rows.append(["IvRA-softmax", *own])
    known = [row for row in rows if None not in row]
    known.sort(key=lambda row: row[-1])
    lines = [[title, *(f"{seconds:.3f}" for seconds in row)] for title, *row in known]
    return markdown(["seconds a row", *(f"{size} tokens" for size in sizes)], lines)


def results() -> str:
    """All of it."""
    made = cells()
    if not made:
        return ""
    tables = [
        table(made, metric, tuple(dict.fromkeys((metric, *also))))
        for metric, also in (
            ("sim", ()),
            ("comp", ("fidelity",)),
            ("suff", ("fidelity",)),
            ("cons", ()),
        )
    ]
    return "\n".join(part for part in (facts(made), *tables, orderings(made)) if part)
