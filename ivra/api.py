"""The package from Python: explain rows with a run, and write a report of it all."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import torch

from ivra.data import Item, Row, document_ids
from ivra.errors import IvraError
from ivra.evaluation import (
    AopcSettings,
    EraserScores,
    EvalConfig,
    Reduced,
    aopc,
    eraser_figures,
    eraser_scores,
    evaluation_rows,
    predicted,
    rationale_share,
    token_scores,
)
from ivra.explainers import (
    BATCH_TOKENS,
    Explainer,
    ModuleExplainer,
    check_explainers,
    static_explainer,
)
from ivra.losses import AOPC_BINS
from ivra.reports import (
    Compared,
    ComparePage,
    EraserDocument,
    EraserInstance,
    EraserReduced,
    ExplainedRow,
    LogRecord,
    Page,
    write_compare_html,
    write_eraser,
    write_html,
)
from ivra.reports.results import EXPLAINER_TITLES, summary_rows
from ivra.studies.heatmaps import example_cells
from ivra.studies.run import StudyResult
from ivra.studies.tables import TITLES
from ivra.training import Run, load_run
from ivra.training.log import LOG, read_log


def explain(
    run: Run,
    rows: Sequence[str | tuple[str, str] | Row],
    explainers: Sequence[str] = ("ivra",),
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[ExplainedRow]:
    """Explain the model's predictions on ``rows``.

    Args:
        run: from :func:`ivra.load` or :func:`ivra.train`.
        rows: texts, pairs of texts (a question and its context for a model that answers
            questions), or rows as read from a file.
        explainers: ``"ivra"`` (the trained module) and names of static explainers, with options
            where one has them (``"lime:samples=100"``); a row is explained by each of them in
            turn.
        batch_tokens: tokens of a batch of an explainer, padding included and with the copies of
            rows that it makes; no score depends on it.

    Returns:
        For every row, one :class:`~ivra.reports.ExplainedRow` an explainer. Of a context in
        several windows it shows the one that holds the answer.

    Raises:
        IvraError: an unknown explainer, option or value, a text without a token to explain, or
            ``batch_tokens`` below 1.
    """
    return _explained(run, rows, explainers, batch_tokens)[1]


def _explained(
    run: Run,
    rows: Sequence[str | tuple[str, str] | Row],
    explainers: Sequence[str],
    batch_tokens: int,
) -> tuple[Sequence[Item], list[ExplainedRow]]:
    """The items that are explained, a row each, and what :func:`explain` returns."""
    chosen = _explainers(run, explainers, batch_tokens)
    backbone = run.backbone.eval()
    windows = run.encoder.items([_row(row, i) for i, row in enumerate(rows)], labelled=False)
    if not windows:
        return [], []
    items, logits = predicted(backbone, windows)
    claims = backbone.task.claims(items, logits, backbone.labels)
    found = {e.name: token_scores(e, backbone, items, batch_tokens) for e in chosen}
    explained = []
    for place, (item, claim) in enumerate(zip(items, claims, strict=True)):
        for name in explainers:
            explained.append(
                ExplainedRow(
                    id=item.row.id,
                    explainer=name,
                    texts=item.row.texts,
                    tokens=tuple(backbone.tokenizer.convert_ids_to_tokens(item.input_ids)),
                    spans=tuple(
                        span if segment >= 0 else None
                        for span, segment in zip(item.offsets, item.segment, strict=True)
                    ),
                    segment=tuple(item.segment),
                    saliency=tuple(found[name][place].tolist()),
                    explainable=tuple(item.explainable),
                    prediction=claim.prediction,
                    confidence=claim.confidence,
                    probabilities=claim.probabilities,
                    label=claim.gold,
                    rationale=None if item.rationale is None else tuple(item.rationale),
                    correct=claim.correct,
                    answer=claim.span,
                )
            )
    return items, explained


def compare(
    run: Run,
    rows: Sequence[str | tuple[str, str] | Row],
    explainers: Sequence[str] = ("ivra", "attention", "input-x-gradient", "random"),
    batch_tokens: int = BATCH_TOKENS,
) -> list[Compared]:
    """Explain rows by several explainers, and judge each explanation on its own row.

    Args:
        run: from :func:`ivra.load` or :func:`ivra.train`.
        rows: as :func:`explain` takes them.
        explainers: ``"ivra"`` (the trained module) and names of static explainers.
        batch_tokens: as :func:`explain` takes it.

    Returns:
        For every row, one :class:`~ivra.reports.Compared` an explainer: the explained row, and
        its AOPC comprehensiveness and sufficiency with the bins of the run, by deletion.

    Raises:
        IvraError: as :func:`explain` does.
    """
    names = tuple(dict.fromkeys(explainers))
    items, explained = _explained(run, rows, names, batch_tokens)
    if not explained:
        return []
    rankings = {
        name: [torch.tensor(row.saliency) for row in explained if row.explainer == name]
        for name in names
    }
    found = aopc(run.backbone, items, rankings, AopcSettings().with_bins(run.config.bins))
    figures = {
        name: list(zip(of.comp.tolist(), of.suff.tolist(), strict=True))
        for name, of in found.items()
    }
    return [
        Compared(row, *figures[row.explainer][place // len(names)])
        for place, row in enumerate(explained)
    ]


def write_comparison(path: str | Path, run: Run, compared: Sequence[Compared]) -> None:
    """One self-contained HTML page of what :func:`compare` returned, a card a row."""
    page = ComparePage(
        run=run.name,
        model=_model_name(run),
        criteria=tuple(run.config.criteria.split(",")),
        date=time.strftime("%Y-%m-%d"),
        compared=tuple(compared),
        titles=EXPLAINER_TITLES,
        evidence=_evidence(run),
    )
    write_compare_html(path, page)


def write_study_examples(found: StudyResult, output: Path, rows: int = 4) -> list[Path]:
    """A page a model: some rows that a study judged on, explained by everything it has.

    They are the first ``rows`` rows of the first data set and seed, a line an explainer or
    method, as on the page of :func:`write_comparison`.
    """
    written = []
    for number, model in enumerate(found.study.models):
        cells = example_cells(found, model)
        if not cells or not (found.matrix.runs / cells[0].base_run / "run.json").is_file():
            continue
        base = load_run(found.matrix.runs / cells[0].base_run)
        judged, _ = evaluation_rows(base, cells[0].cell.evaluation)
        shown = min(rows, len(judged))
        lines = [compare(base, judged[:rows], found.study.explainers)]
        for cell in cells:
            title = TITLES.get(str(cell.method), str(cell.method))
            own = compare(
                load_run(found.matrix.runs / str(cell.cell.run)), judged[:rows], ("ivra",)
            )
            lines.append([replace(c, row=replace(c.row, explainer=title)) for c in own])
        by_row = [
            entry
            for place in range(shown)
            for own in lines
            for entry in own[place * len(own) // shown : (place + 1) * len(own) // shown]
        ]
        page = ComparePage(
            run=found.study.title or found.study.name,
            model=model,
            criteria=found.study.criteria,
            date=time.strftime("%Y-%m-%d"),
            compared=tuple(by_row),
            titles=EXPLAINER_TITLES,
            evidence=_evidence(base),
        )
        many = len(found.study.models) > 1
        target = output / (f"examples-{number + 1}.html" if many else "examples.html")
        write_compare_html(target, page)
        written.append(target)
    return written


def _model_name(run: Run) -> str:
    """The model's own name, or that of the run whose folder ``model`` it is."""
    path = Path(run.config.model)
    return path.parent.name if path.name == "model" else path.name


def _evidence(run: Run) -> str:
    return "planted evidence" if run.config.data == "builtin" else "human rationale"


def _row(row: str | tuple[str, str] | Row, place: int) -> Row:
    if isinstance(row, Row):
        return row
    texts = (row,) if isinstance(row, str) else tuple(row)
    where = f"text {place + 1}"
    if any(not text.strip() for text in texts):
        raise IvraError(f"{where} is empty: expected at least one word")
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise IvraError(f"{where} is not valid Unicode: expected UTF-8 from the shell or file")
    return Row(where, texts, where=where)


def _explainers(run: Run, names: Sequence[str], batch_tokens: int) -> list[Explainer]:
    """Those of ``names`` in order, every one known to fit the model."""
    if batch_tokens < 1:
        raise IvraError(f"batch_tokens is {batch_tokens}: expected at least 1")
    own = ModuleExplainer.name
    check_explainers(names, (own,))
    chosen = [
        ModuleExplainer(run.module) if name == own else static_explainer(name, 0, batch_tokens)
        for name in names
    ]
    for explainer in chosen:
        explainer.check(run.backbone)
    return chosen


def export_eraser(
    path: str | Path, run: Run, config: EvalConfig | None = None, explainer: str = "ivra"
) -> dict[str, object]:
    """Predictions and explanations in ERASER's results format, which its scorer reads.

    The format knows classes alone.

    Args:
        path: the JSON Lines file to write, a line a row.
        run: from :func:`ivra.load` or :func:`ivra.train`.
        config: which rows (``data``, ``split``, ``rows``); the scorer needs all of a split.
        explainer: ``"ivra"`` (the trained module) or the name of a static explainer.

    Returns:
        The benchmark's figures of what was written, as
        :func:`~ivra.evaluation.eraser_figures` defines them, with ``explainer``, and the ``share``
        of words in a hard rationale.

    Raises:
        IvraError: data that cannot be read, an unknown explainer, a file that cannot be written, a
            model without classes.
    """
    check_eraser(run)
    config = config or EvalConfig()
    backbone, tokens = run.backbone.eval(), config.explain_batch_tokens
    (chosen,) = _explainers(run, (explainer,), tokens)
    rows, _ = evaluation_rows(run, config)
    items = run.encoder.items(rows, labelled=False)
    ranking = token_scores(chosen, backbone, items, tokens)
    share = rationale_share(items)
    percents = sorted({*AOPC_BINS, *run.config.bins})
    found = eraser_scores(backbone, items, ranking, share, percents)
    pairs = zip(items, found, strict=True)
    write_eraser(path, [_instance(item, row, backbone.labels) for item, row in pairs])
    return {"explainer": explainer, "share": share, **eraser_figures(items, found)}


def check_eraser(run: Run) -> None:
    """Raise :class:`IvraError` if ERASER's results format has no place for what is predicted."""
    task = run.backbone.task
    if not task.has_classes:
        raise IvraError(
            f"ERASER's results format holds classes, which {task.name} does not have: leave the "
            "export out"
        )


def _instance(item: Item, row: EraserScores, labels: Sequence[str]) -> EraserInstance:
    def by_class(scores: Sequence[float]) -> dict[str, float]:
        return dict(zip(labels, scores, strict=True))

    def both(scores: Reduced) -> EraserReduced:
        return EraserReduced(by_class(scores.without), by_class(scores.only))

    docids = [docid for docid in document_ids(item.row) if docid is not None]
    documents = zip(docids, row.hard, row.soft, strict=True)
    return EraserInstance(
        annotation_id=item.row.id,
        documents=tuple(EraserDocument(*document) for document in documents),
        classification=labels[row.prediction],
        scores=by_class(row.whole),
        reduced=both(row.reduced),
        # In decimals: 0.3 percent is 0.003, as a scorer's threshold is written, and not 0.3 / 100.
        thresholds={float(Decimal(repr(p)) / 100): both(s) for p, s in row.by_percent.items()},
    )


def write_report(
    path: str | Path,
    run: Run,
    rows: Sequence[ExplainedRow] = (),
    result: Mapping[str, object] | None = None,
) -> None:
    """One self-contained HTML page: figures, training curves, explained rows, configuration.

    Args:
        path: the file to write.
        run: the run it is about.
        rows: what :func:`explain` returned.
        result: what :func:`ivra.evaluate` returned, if the figures should be on the page.
    """
    facts = {"Data": run.config.data, "Seed": str(run.config.seed)}
    if result is not None:
        data: Mapping[str, object] = result["data"]  # type: ignore[assignment]
        facts["Rows"] = f"{data['rows']} ({data['split']})"
        for part in ("accuracy", "answers"):
            right = result.get(part)
            if isinstance(right, Mapping):
                title = run.backbone.task.measure.replace("_", " ").capitalize()
                facts[title] = f"{right[run.backbone.task.measure]:.3f}"
    page = Page(
        title="How the model decides",
        run=run.name,
        model=run.config.model,
        criteria=tuple(run.config.criteria.split(",")),
        date=time.strftime("%Y-%m-%d"),
        facts=facts,
        summary=() if result is None else summary_rows(result),
        log=_curves(run),
        rows=tuple(rows),
        evidence=_evidence(run),
        config=run.config.model_dump(mode="json"),
    )
    write_html(path, page)


def _curves(run: Run) -> tuple[LogRecord, ...]:
    """The criteria stage of the run's log."""
    if not (run.path / LOG).is_file():
        return ()
    return tuple(
        LogRecord(step=entry["step"], split=entry["split"], terms=entry["terms"])
        for entry in read_log(run.path / LOG)
        if entry["stage"] == "criteria"
    )
