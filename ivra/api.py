"""The package from Python: explain rows with a run, and write a report of it all."""

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from ivra.data import Item, Row, document_ids
from ivra.errors import IvraError
from ivra.evaluation import (
    EraserScores,
    EvalConfig,
    Reduced,
    eraser_figures,
    eraser_scores,
    evaluation_rows,
    predicted,
    rationale_share,
    token_scores,
)
from ivra.explainers import Explainer, ModuleExplainer, static_explainer
from ivra.losses import AOPC_BINS
from ivra.reports import (
    EraserDocument,
    EraserInstance,
    EraserReduced,
    ExplainedRow,
    LogRecord,
    Page,
    write_eraser,
    write_html,
)
from ivra.reports.results import summary_rows
from ivra.training import Run
from ivra.training.log import read_log
from ivra.training.run import LOG


def explain(
    run: Run,
    rows: Sequence[str | tuple[str, str] | Row],
    explainers: Sequence[str] = ("ivra",),
) -> list[ExplainedRow]:
    """Explain the model's predictions on ``rows``.

    Args:
        run: from :func:`ivra.load` or :func:`ivra.train`.
        rows: texts, pairs of texts (a question and its context for a model that answers
            questions), or rows as read from a file.
        explainers: ``"ivra"`` (the trained module) and names of static explainers; a row is
            explained by each of them in turn.

    Returns:
        For every row, one :class:`~ivra.reports.ExplainedRow` an explainer. Of a context in
        several windows it shows the one that holds the answer.

    Raises:
        IvraError: an unknown explainer, or a text without a token to explain.
    """
    backbone = run.backbone.eval()
    windows = run.encoder.items([_row(row, i) for i, row in enumerate(rows)], labelled=False)
    if not windows:
        return []
    items, logits = predicted(backbone, windows)
    claims = backbone.task.claims(items, logits, backbone.labels)
    found = {name: token_scores(_explainer(run, name), backbone, items) for name in explainers}
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
    return explained


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


def _explainer(run: Run, name: str) -> Explainer:
    if name == ModuleExplainer.name:
        return ModuleExplainer(run.module)
    return static_explainer(name)


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
    backbone = run.backbone.eval()
    rows, _ = evaluation_rows(run, config or EvalConfig())
    items = run.encoder.items(rows, labelled=False)
    ranking = token_scores(_explainer(run, explainer), backbone, items)
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
        evidence="planted evidence" if run.config.data == "builtin" else "human rationale",
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
