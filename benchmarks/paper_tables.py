"""What ``docs/results.md`` shows: the paper's tables from the cells in ``results/paper``."""

from cell_tables import BETTER, METHODS, SETS, STATIC, Made, cells, explained, shown, trained

from ivra.studies import Summary, markdown, summary_of

OF_PAPER = (
    "attention",
    "attention-last",
    "input-x-gradient",
    "integrated-gradients",
    "lime",
    "lime:samples=100",
)
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
OURS = (
    ("ivra-fidelity", "fidelity"),
    ("ivra-value", "fidelity"),
    ("ivra-value", "comp"),
    ("ivra-value", "suff"),
)
"""Methods and criteria that stand for ivra where one pass is set against hundreds."""
TITLES = {
    "sim": "SIM (higher is better), table 1",
    "comp": "COMP (higher is better), table 2",
    "suff": "SUFF (lower is better), table 3",
    "cons": "CONS (higher is better), table 4",
}


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
    for method, criterion in OURS:
        both = [trained(made, data, method, criterion, m) for m in ("comp", "suff")]
        if both[0].mean is not None:
            own = next(m for m in made if (m.method, m.criterion) == (method, criterion))
            config = own.result["config"]
            label = f"ivra, trained for `{criterion}`, {config['max_steps']} steps"
            label += ", readout" if "readout" in config["levels"] else ""
            rows.append([label, "1", *both])
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
                ", ".join(map(str, sorted({config["max_steps"] for config in trainings}))),
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
