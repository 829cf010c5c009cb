"""Write the tables of the README and of ``docs/`` from the JSON in ``benchmarks/results``.

python benchmarks/tables.py            # rewrites them between their markers
python benchmarks/tables.py --check    # exit code 1 if it is not up to date
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import cell_tables
import figure_tables
import mixing_tables
import paper_tables

from ivra.storage import write_text_atomic
from ivra.studies import figure, markdown, spread

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- results -->", "<!-- end of results -->"
TITLES = {
    "ivra": "ivra (trained)",
    "untrained": "ivra, untrained",
    "attention": "mean attention",
    "attention-last": "last-layer attention",
    "input-x-gradient": "Input x Gradient",
    "integrated-gradients": "Integrated Gradients",
    "occlusion": "occlusion",
    "lime": "LIME",
    "random": "random",
}


def read(pattern: str) -> list[dict]:
    """All results whose path fits ``pattern``, sorted by name."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(RESULTS.glob(pattern))]


def grouped(pattern: str) -> dict[str, list[dict]]:
    """The same by the group of their cell."""
    groups: dict[str, list[dict]] = {}
    for result in read(pattern):
        groups.setdefault(result["cell"]["group"], []).append(result)
    return groups


def number(value: float | None) -> str:
    """Three digits, or a dash where the figure is undefined."""
    return "-" if value is None else f"{value:.3f}"


def builtin() -> str:
    """Criteria on the built-in data, each on its own metric."""
    groups = grouped("builtin/*.json")
    if not groups:
        return ""
    names = ("ivra", "untrained", "attention", "attention-last", "random")
    rows = [
        [
            f"`{group}`",
            *(spread(figure(result, name, group) for result in found) for name in names),
            spread(figure(result, "ivra", "plausibility") for result in found),
        ]
        for group, found in groups.items()
    ]
    seeds = sorted({result["config"]["seed"] for found in groups.values() for result in found})
    accuracy = spread(r["accuracy"]["accuracy"] for found in groups.values() for r in found)
    cuts = {r["config"]["topk_gradient"] for found in groups.values() for r in found}
    given = {name: found[0]["config"]["options"] for name, found in groups.items()}
    forms = "".join(
        f", `{name}` in its form `{options[name]['form']}`"
        for name, options in given.items()
        if "form" in options.get(name, {})
    )
    header = ["trained for and measured by", *(TITLES[name] for name in names), "AUC to evidence"]
    return (
        f"Built-in data, tiny ELECTRA, seeds {', '.join(map(str, seeds))}: mean (least to "
        f"largest); `suff` lower is better, the others higher; test accuracy {accuracy}; "
        f"`topk_gradient` {', '.join(sorted(cuts))}{forms}. "
        "`python benchmarks/builtin.py --criteria comp,suff,cons`, "
        "`benchmarks/results/builtin/`.\n\n" + markdown(header, rows)
    )


def explain_time() -> str:
    """Time of an explanation over that of a plain forward pass."""
    found = read("explain_time.json")
    if not found:
        return ""
    rows = [
        [name, f"{values['ratio_to_plain_forward']:.2f}"]
        for name, values in found[0]["figures"].items()
    ]
    return (
        f"Time to explain {found[0]['rows']} rows of {found[0]['length']} tokens with MiniLM, over "
        f"a plain fused-attention forward of the same batch ({found[0]['threads']} CPU threads, "
        f"{found[0].get('clock', 'wall')} time). "
        "`python benchmarks/explain_time.py`, `benchmarks/results/explain_time.json`.\n\n"
        + markdown(["", "x plain forward"], rows)
    )


def aopc_time() -> str:
    """Time of AOPC by other ways over that of the engine."""
    found = read("aopc.json")
    if not found:
        return ""
    result = found[0]
    tokens = result["tokens"] / result["tokens_of_whole_rows"]
    ways = {
        "engine": "ivra's engine",
        "rows": "a loop over rows, as ferret does",
        "ferret": "ferret-xai itself",
        "batches": "batches of 8, bin by bin, as ERASER's baselines do",
        "bins": "a batched loop a bin, in the order of the file",
        "whole length": "batches of 8 padded to the whole length, as UNIREX's evaluation pads",
        "floor": "the floor: as many tokens, unpadded, through the plain model",
    }
    rows = [
        [title, f"{result['figures'][name]['times_engine']:.2f}"]
        for name, title in ways.items()
        if name in result["figures"]
    ]
    rounds = len(result["figures"]["engine"]["seconds"])
    return (
        f"Time of COMP and SUFF over that of the engine: {result['rows']} rows of IMDb, MiniLM "
        f"with a random head made loud, {result['threads']} thread, CPU time, median of {rounds} "
        "rounds. "
        f"The engine runs {tokens:.1f} tokens for each token of the rows. "
        f"`{result['command']}`, `benchmarks/results/aopc.json`.\n\n"
        + markdown(["", "x engine"], rows)
        + aopc_memory()
    )


def aopc_memory() -> str:
    """How much memory AOPC needs, by the size of the set."""
    found = read("aopc_memory.json")
    if not found:
        return ""
    sizes = ", ".join(f"{s['risen_by_mib']:.0f} MiB for {s['rows']:,}" for s in found[0]["sizes"])
    return (
        f"\nPeak memory beyond model, rows and scores: {sizes} rows (tiny ELECTRA; what grows is "
        f"the result). `{found[0]['command']}`, `benchmarks/results/aopc_memory.json`.\n"
    )


def topk_gradient() -> str:
    """Gradients through the cut: cosines at every width, and AOPC after training."""
    found = read("topk_gradient.json")
    if not found:
        return ""
    result = found[0]
    header = ["gradient"]
    for width in result["widths"]:
        header += [f"cosine, comp, width {width:g}", f"suff, width {width:g}"]
    header += ["COMP after training (higher)", "SUFF after training (lower)"]
    rows = []
    for name in result["cosines"][f"{result['widths'][0]:g}"][0]["comp"]:
        if name == "rows":
            continue
        row = ["exact (ceiling)" if name == "ceiling" else name]
        for width in result["widths"]:
            seeds = result["cosines"][f"{width:g}"]
            row += [f"{statistics.fmean(s[c][name] for s in seeds):.2f}" for c in ("comp", "suff")]
        after = result["trained"].get(name, {})
        rows.append([*row, *(spread(after.get(c, [])) for c in ("comp", "suff"))])
    return (
        "The loss of the hard cut has no gradient to compare with, so the reference is that of the "
        "loss averaged over scores nearby, `E_z[loss(cut(s + width z))]`, by finite differences of "
        f"the hard objective in {result['pairs']} random directions and their opposites a bin "
        "(form `difference`, summed over the five bins). Cosine with it over a row's tokens, mean "
        f"over {result['rows_a_seed']} rows of the built-in data and seeds "
        f"{', '.join(map(str, result['seeds']))}; *ceiling* is what the exact gradient would have, "
        f"as the reference is noisy too. After training: AOPC on validation rows after "
        f"{result['steps']} steps of the defaults, tiny ELECTRA, mean (least to largest) over "
        "seeds. `python benchmarks/topk_gradient.py`, `benchmarks/results/topk_gradient.json`.\n\n"
        + markdown(header, rows)
    )


def simulatability() -> str:
    """Students taught by the module trained for ``sim``, by its baselines and by the controls."""
    found = read("simulatability/*.json")
    if not found:
        return ""
    settings, used = found[0]["settings"]["sim"], found[0]["config"]
    names = {**TITLES, "none": "no explanation", "true": "true evidence"}
    names = {name: title for name, title in names.items() if name in found[0]["figures"]}
    rows = [
        [str(r["config"]["seed"]), *(number(figure(r, name, "sim")) for name in names)]
        for r in found
    ]
    return (
        f"Simulation accuracy on the built-in data, tiny ELECTRA: median of {settings['students']} "
        f"students from scratch that learn {settings['rows']} rows for {settings['epochs']:g} "
        f"epochs. The module was trained for `sim` alone in the form "
        f"`{used['options'].get('sim', {}).get('form', 'hypergradient')}`, "
        f"{used['epochs']:g} epochs with "
        f"{used['student_rows']} study rows. `python benchmarks/builtin.py --criteria sim "
        f"--seeds {','.join(row[0] for row in rows)} "
        f"--students {settings['students']} --output benchmarks/results/simulatability`.\n\n"
        + markdown(["seed", *names.values()], rows)
    )


def readings() -> str:
    """Readings of NORM: each trained for comp and for suff, over seeds."""
    groups = grouped("readings/*.json")
    if not groups:
        return ""
    names = {"comp": "COMP, trained for it (higher)", "suff": "SUFF, trained for it (lower)"}
    variants = dict.fromkeys(group.rpartition("-")[0] for group in groups)
    rows = [
        [
            f"`{variant}`",
            *(
                spread(figure(result, "ivra", name) for result in groups[f"{variant}-{name}"])
                for name in names
            ),
        ]
        for variant in variants
    ]
    rows.sort(key=lambda row: float(row[1].split()[0]), reverse=True)
    found = [groups[f"{next(iter(variants))}-{name}"] for name in names]
    untrained = [
        spread(figure(result, "untrained", name) for result in results)
        for name, results in zip(names, found, strict=True)
    ]
    config = found[0][0]["config"]
    seeds = sorted({result["config"]["seed"] for result in found[0]})
    return (
        f"Built-in data, tiny ELECTRA, {config['epochs']:g} epochs of stage 2 on the frozen model, "
        f"feature, head and layer levels (`-value`: that too), seeds "
        f"{', '.join(map(str, seeds))}; AOPC on the test part, mean (least to largest). The NORM "
        "of a row is that of the coefficients and of the saliency. "
        "`python benchmarks/readings.py`, `benchmarks/results/readings/`.\n\n"
        + markdown(["reading and NORM", *names.values()], [*rows, ["untrained", *untrained]])
    )


def between(text: str, start: str, end: str, parts: tuple[str, ...]) -> str:
    """``text`` with everything between the markers made anew."""
    if start not in text or end not in text:
        sys.exit(f"no {start} and {end} to write between")
    before, _, rest = text.partition(start)
    after = rest.partition(end)[2]
    body = "\n".join(part for part in parts if part)
    return f"{before}{start}\n\n{body}\n{end}{after}"


def results_page(text: str) -> str:
    """``docs/results.md`` with its tables made anew."""
    for name, part in (
        ("paper", paper_tables.results()),
        ("plausibility", figure_tables.plausibility()),
        ("levels", figure_tables.levels()),
        ("important", figure_tables.important()),
        ("lengths", figure_tables.lengths()),
        ("batching", figure_tables.batching()),
        ("norms", figure_tables.norms()),
        ("trials", figure_tables.trials()),
    ):
        text = between(text, f"<!-- {name} -->", f"<!-- end of {name} -->", (part,))
    return text


def pages() -> dict[Path, str]:
    """The pages with tables, as they should be."""
    readme, docs = ROOT / "README.md", ROOT / "docs"
    criteria, attention = docs / "criteria.md", docs / "attention.md"
    evaluation, results = docs / "evaluation.md", docs / "results.md"
    mixing = docs / "mixing.md"
    return {
        readme: between(
            readme.read_text(encoding="utf-8"),
            START,
            END,
            (*map(paper_tables.one_pass, cell_tables.SETS), builtin(), explain_time()),
        ),
        criteria: between(
            between(
                criteria.read_text(encoding="utf-8"),
                "<!-- topk -->",
                "<!-- end of topk -->",
                (topk_gradient(),),
            ),
            "<!-- sim -->",
            "<!-- end of sim -->",
            (simulatability(),),
        ),
        evaluation: between(
            evaluation.read_text(encoding="utf-8"),
            "<!-- aopc -->",
            "<!-- end of aopc -->",
            (aopc_time(),),
        ),
        results: results_page(results.read_text(encoding="utf-8")),
        mixing: between(
            mixing.read_text(encoding="utf-8"),
            "<!-- mixing -->",
            "<!-- end of mixing -->",
            (mixing_tables.mixing(),),
        ),
        attention: between(
            attention.read_text(encoding="utf-8"),
            "<!-- measured -->",
            "<!-- end of measured -->",
            (readings(),),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    for path, new in pages().items():
        if path.read_text(encoding="utf-8") == new:
            continue
        if arguments.check:
            sys.exit(f"{path.name} is not up to date: run benchmarks/tables.py")
        write_text_atomic(path, new)


if __name__ == "__main__":
    main()
