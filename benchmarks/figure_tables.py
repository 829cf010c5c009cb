"""What ``docs/results.md`` shows beside the tables 1 to 4 of the paper: figures, and trials."""

import json
from collections.abc import Iterable

from cell_tables import (
    BETTER,
    METHODS,
    RESULTS,
    SETS,
    STATIC,
    Made,
    cells,
    explained,
    shown,
    trained,
)

from ivra.studies import markdown


def trials() -> str:
    """Fidelity beside comp, where such choices are made: on dev rows."""
    rows = []
    for path in sorted((RESULTS / "fidelity").glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        config, own = result["config"], result["figures"]["ivra"]
        rows.append(
            [
                config["criteria"],
                str(config["value_hidden"]),
                "yes" if "readout" in config["levels"] else "no",
                str(config["max_steps"]),
                f"{own['comp']:.3f}",
                f"{own['suff']:.3f}",
                ", ".join(f"{value:.2f}" for value in own["comp_by_bin"]),
            ]
        )
    rows.sort(key=lambda row: int(row[3]))
    header = ["trained for", "hidden units", "readout", "steps", "COMP", "SUFF", "COMP by bin"]
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
    made = cells(RESULTS / "levels")
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
    header = [f"{SETS.get(d, d)}, {m.upper()}" for d, m in columns]
    return markdown(["levels trained", *header], [*rows, ["none (untrained)", *start]])


def important() -> str:
    """Figure 7: how many tokens an explanation calls important, and what they do."""
    metrics = {"important": "important tokens", "comp": "COMP", "suff": "SUFF"}
    return _by_data(cells(RESULTS / "important"), metrics, ("comp",))


def batching() -> str:
    """SIM after training on batches of like length at the rate of the other tables, beside table 1,
    the same seeds of each."""
    other, made = cells(RESULTS / "sim_batching"), cells()
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
    made = cells(RESULTS / "norms")
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
    made = cells(RESULTS / "lengths")
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
