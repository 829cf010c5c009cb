"""``ivra eval``."""

from pathlib import Path

import click

from ivra.api import check_eraser, explain, export_eraser, write_report
from ivra.cli.aopc import aopc_options, chosen_aopc
from ivra.cli.console import (
    PREFERENCE,
    comma_separated,
    console,
    different_files,
    messages,
    preference,
    preferring,
    quiet,
)
from ivra.errors import IvraError
from ivra.evaluation import BASELINES, METRICS, TOKEN_BUDGET, EvalConfig, evaluate
from ivra.explainers import BATCH_TOKENS, CONTROLS
from ivra.reports import result_lines, results_tables
from ivra.storage import write_json_atomic
from ivra.training import Run, load_run, read_splits
from ivra.training.task import read_part

EXAMPLES = 12


@click.command("eval")
@click.argument("run", default="runs/latest", type=click.Path(path_type=str))
@click.option(
    "--accuracy", "wanted", flag_value="accuracy", multiple=True, help="accuracy or exact match, F1"
)
@click.option(
    "--aopc", "wanted", flag_value="aopc", multiple=True, help="comprehensiveness, sufficiency"
)
@click.option("--sim", "wanted", flag_value="sim", multiple=True, help="simulation accuracy")
@click.option("--cons", "wanted", flag_value="cons", multiple=True, help="consistency")
@click.option(
    "--plausibility", "wanted", flag_value="plausibility", multiple=True, help="AUC, AP, recall, F1"
)
@click.option(
    "--entropy", "wanted", flag_value="entropy", multiple=True, help="entropy, size of support"
)
@click.option("--data", type=str, help="rows to judge on  [default: the run's own]")
@click.option("--split", default="test", show_default=True, help="part of the data")
@click.option("--rows", type=click.IntRange(1), metavar="N", help="at most this many rows")
@click.option(
    "--explainers",
    default=",".join(BASELINES),
    show_default=True,
    help="what the trained module stands beside, with commas; options as lime:samples=100",
)
@click.option("--students", default=3, show_default=True, help="students of --sim")
@click.option("--student-rows", default=500, show_default=True, help="rows each student learns")
@click.option("--student-epochs", type=float, help="passes over them  [default: 8, tiny: 30]")
@click.option(
    "--controls",
    help=f"further students of --sim: {', '.join(CONTROLS)}  [default: all that the data allows]",
)
@click.option("--recall-k", default="5", show_default=True, help="k of recall@k, with commas")
@click.option(
    "--resamples", default=2000, show_default=True, help="of rows for 95 % intervals; 0: none"
)
@click.option(
    "--seed", default=0, show_default=True, help="seed of students, random scores, resamples"
)
@click.option("--preference", callback=preference, metavar="CRITERION=NUMBER,...", help=PREFERENCE)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, mps, ...")
@aopc_options
@click.option(
    "--token-budget", default=TOKEN_BUDGET, show_default=True, help="tokens of a batch of AOPC"
)
@click.option(
    "--explain-batch-tokens",
    default=BATCH_TOKENS,
    show_default=True,
    help="tokens of a batch of an explainer, its copies of rows included",
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False), help="result file")
@click.option("--html", "html_path", type=click.Path(dir_okay=False), help="page with examples")
@click.option(
    "--export-eraser",
    "eraser_path",
    type=click.Path(dir_okay=False),
    help="predictions and rationales in ERASER's results format",
)
def eval_command(
    run: str,
    wanted: tuple[str, ...],
    data: str | None,
    split: str,
    rows: int | None,
    explainers: str,
    students: int,
    student_rows: int,
    student_epochs: float | None,
    controls: str | None,
    recall_k: str,
    resamples: int,
    seed: int,
    preference: dict[str, float] | None,
    device: str,
    token_budget: int,
    explain_batch_tokens: int,
    json_path: str | None,
    html_path: str | None,
    eraser_path: str | None,
) -> None:
    """Measure RUN (default: the latest) on test rows, beside the usual baselines.

    Without a choice of metrics, all that the data allows. The result is written to
    RUN/eval-<split>.json (eval-<data>.json with --data) unless --json names another file.
    """
    different_files(json=json_path, html=html_path, export_eraser=eraser_path)
    config = EvalConfig(
        metrics=tuple(metric for metric in METRICS if metric in wanted),
        data=data,
        split=split,
        rows=rows,
        explainers=comma_separated(explainers),
        students=students,
        student_rows=student_rows,
        student_epochs=student_epochs,
        controls=None if controls is None else comma_separated(controls),
        recall_k=_counts(recall_k),
        resamples=resamples,
        seed=seed,
        aopc=chosen_aopc(click.get_current_context()),
        token_budget=token_budget,
        explain_batch_tokens=explain_batch_tokens,
        preference=preference,
    )
    quiet()
    loaded = preferring(load_run(run, device), preference)
    if eraser_path is not None:
        check_eraser(loaded)
    with messages.status("reading rows") as status:
        result = evaluate(loaded, config, lambda what: status.update(what))
        if eraser_path is not None:
            status.update("ERASER's results format")
            result["eraser"] = export_eraser(eraser_path, loaded, config)
    target = json_path or str(loaded.path / f"eval-{Path(data).stem if data else split}.json")
    write_json_atomic(target, result)
    _print(result)
    console.print(f"written to {target}", soft_wrap=True, highlight=False)
    if eraser_path is not None:
        console.print(f"ERASER: {Path(eraser_path).resolve()}", soft_wrap=True, highlight=False)
    if html_path is not None:
        _write_page(html_path, loaded, config, result)
        console.print(f"page: {Path(html_path).resolve()}", soft_wrap=True, highlight=False)


def _print(result: dict[str, object]) -> None:
    for table in results_tables(result):
        console.print(table)
        console.print()
    for line in result_lines(result):
        console.print(line, highlight=False)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise IvraError(
            f"--recall-k is '{text}': expected whole numbers with commas between, such as 5,10"
        ) from error


def _write_page(path: str, run: Run, config: EvalConfig, result: dict[str, object]) -> None:
    if config.data is not None:
        rows = read_part(run.config, config.data, config.split)
    else:
        splits = read_splits(run.config)
        rows = {"train": splits.train, "dev": splits.valid, "test": splits.test}[config.split]
    rows = rows[: min(EXAMPLES, config.rows or EXAMPLES)]
    write_report(path, run, explain(run, rows, ("ivra", "untrained")), result)
