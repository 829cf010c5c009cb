"""ERASER there and back: a directory is read, trained on, exported, and scored from the file.

The scorer here knows the format and the benchmark's formulas and nothing of ivra. Its loops are
as naive as can be: every threshold, every pair of spans.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import ivra
from ivra.cli.main import main
from ivra.data import Row, read_rows
from ivra.training import Run, TrainConfig, load_run, train
from ivra.training.run import save_weights

torch.set_num_threads(1)

BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
QUICK = {
    "criteria": "suff",
    "max_length": 48,
    "batch_size": 16,
    "finetune_epochs": 3.0,
    "max_steps": 2,
    "validations": 1,
    "validation_rows": 16,
}
Key = tuple[str, str]
Spans = dict[Key, set[tuple[int, int]]]


# --- the benchmark's scorer, once more -----------------------------------------------------


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def documents(folder: Path) -> dict[str, list[str]]:
    """The tokens of every document, by docid."""
    if (folder / "docs.jsonl").exists():
        return {
            record["docid"]: [
                t for x in record["document"].split("\n") for t in x.strip().split(" ")
            ]
            for record in json_lines(folder / "docs.jsonl")
        }
    return {
        path.name: path.read_text(encoding="utf-8").split() for path in (folder / "docs").iterdir()
    }


def verify(results: list[dict[str, Any]], docs: dict[str, list[str]]) -> None:
    """What the scorer refuses."""
    assert len({result["annotation_id"] for result in results}) == len(results)
    assert results[0]["rationales"][0]["hard_rationale_predictions"]  # else it looks no further
    thresholds = {entry["threshold"] for entry in results[0]["thresholded_scores"]}
    for result in results:
        assert {entry["threshold"] for entry in result["thresholded_scores"]} == thresholds
        assert isinstance(result["classification"], str)
        reduced = [result, *result["thresholded_scores"]]
        names = ("comprehensiveness_classification_scores", "sufficiency_classification_scores")
        scores = [result["classification_scores"]]
        for distribution in scores + [entry[name] for entry in reduced for name in names]:
            assert distribution.keys() == scores[0].keys()
            assert math.isclose(sum(distribution.values()), 1, abs_tol=1e-9)
        assert result["classification"] == max(scores[0], key=lambda label: scores[0][label])
        docids = [document["docid"] for document in result["rationales"]]
        assert len(set(docids)) == len(docids)
        for document in result["rationales"]:
            count = len(docs[document["docid"]])
            assert len(document["soft_rationale_predictions"]) == count
            taken: list[int] = []
            for span in document["hard_rationale_predictions"]:
                assert 0 <= span["start_token"] < span["end_token"] <= count
                taken += range(span["start_token"], span["end_token"])
            assert len(set(taken)) == len(taken)


def f1(precision: float, recall: float) -> float:
    return 0.0 if precision * recall == 0 else 2 / (1 / precision + 1 / recall)


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def curve(truth: list[bool], scores: list[float]) -> list[tuple[float, float]]:
    """(recall, precision) when all tokens from a score upwards are taken, from none to all."""
    points = [(0.0, 1.0)]
    for threshold in sorted(set(scores), reverse=True):
        taken = [mark for mark, score in zip(truth, scores, strict=True) if score >= threshold]
        recall = sum(taken) / sum(truth) if any(truth) else 1.0
        points.append((recall, sum(taken) / len(taken)))
    return points


def steps(points: list[tuple[float, float]]) -> Iterator[tuple[float, float, float]]:
    """Width, left and right height of every piece."""
    for (x, y), (after, height) in pairwise(points):
        yield after - x, y, height


def token_curves(truths: list[list[bool]], soft: list[list[float]]) -> dict[str, float]:
    pairs = list(zip(truths, soft, strict=True))
    both = [(truth, scores) for truth, scores in pairs if any(truth) and not all(truth)]
    rocs = []
    for truth, scores in both:
        marked = [s for s, mark in zip(scores, truth, strict=True) if mark]
        others = [s for s, mark in zip(scores, truth, strict=True) if not mark]
        rocs.append(mean([(m > o) + 0.5 * (m == o) for m in marked for o in others]))
    return {
        "auprc": mean([sum(w * (a + b) / 2 for w, a, b in steps(curve(*p))) for p in pairs]),
        "average_precision": mean([sum(w * b for w, _, b in steps(curve(*p))) for p in both]),
        "roc_auc": mean(rocs),
    }


def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    a, b = set(range(*one)), set(range(*other))
    return len(a & b) / len(a | b)


def token_f1(truth: Spans, predicted: Spans) -> dict[str, float]:
    def tokens(side: Spans) -> set[tuple[Key, int]]:
        return {(key, t) for key, spans in side.items() for span in spans for t in range(*span)}

    def score(one: set[tuple[Key, int]], other: set[tuple[Key, int]]) -> float:
        hits = len(one & other)
        return f1(hits / len(other) if other else 0.0, hits / len(one) if one else 0.0)

    human, model = tokens(truth), tokens(predicted)
    keys = {key for key, _ in human | model}
    by_key = [score(*({x for x in side if x[0] == key} for side in (human, model))) for key in keys]
    return {"token_f1_micro": score(human, model), "token_f1_macro": mean(by_key)}


def iou_f1(truth: Spans, predicted: Spans) -> dict[str, float]:
    truth = {key: spans for key, spans in truth.items() if spans}
    predicted = {key: spans for key, spans in predicted.items() if spans}
    hits = {
        key: sum(max([overlap(p, t) for t in truth.get(key, ())], default=0) >= 0.5 for p in spans)
        for key, spans in predicted.items()
    }
    chosen, marked = (sum(map(len, side.values())) for side in (predicted, truth))
    precision = mean([hits[key] / len(spans) for key, spans in predicted.items()])
    recall = mean([hits.get(key, 0) / len(spans) for key, spans in truth.items()])
    total = sum(hits.values())
    return {
        "iou_f1_micro": f1(total / chosen, total / marked),
        "iou_f1_macro": f1(precision, recall),
    }


def faithfulness(results: list[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for name in ("comprehensiveness", "sufficiency"):
        key = f"{name}_classification_scores"

        def drop(result: dict[str, Any], scores: dict[str, Any], key: str = key) -> float:
            label = result["classification"]
            return result["classification_scores"][label] - scores[key][label]

        found[name] = mean([drop(result, result) for result in results])
        sums = []
        for result in results:
            bins = {
                entry["threshold"]: drop(result, entry) for entry in result["thresholded_scores"]
            }
            sums.append(math.fsum(bins[threshold] for threshold in BINS))
        found[f"{name}_aopc"] = mean(sums) / len(BINS)
        found[f"{name}_aopc_paper"] = mean(sums) / (len(BINS) + 1)
    return found


def score(path: Path, folder: Path, split: str) -> dict[str, float]:
    """Every figure of the benchmark that ivra has, from the file and the directory alone."""
    results, docs = json_lines(path), documents(folder)
    verify(results, docs)
    truth: Spans = {}
    for line in json_lines(folder / f"{split}.jsonl"):
        for group in line["evidences"]:
            for found in group:
                spans = truth.setdefault((line["annotation_id"], found["docid"]), set())
                spans.add((found["start_token"], found["end_token"]))
    predicted: Spans = {}
    marks, soft = [], []
    for result in results:
        for document in result["rationales"]:
            key = (result["annotation_id"], document["docid"])
            predicted[key] = {
                (span["start_token"], span["end_token"])
                for span in document["hard_rationale_predictions"]
            }
            marked = {t for span in truth.get(key, ()) for t in range(*span)}
            marks.append([token in marked for token in range(len(docs[document["docid"]]))])
            soft.append(document["soft_rationale_predictions"])
    return {
        **faithfulness(results),
        **token_curves(marks, soft),
        **token_f1(truth, predicted),
        **iou_f1(truth, predicted),
    }


PAGE = Path(__file__).resolve().parents[1] / "docs" / "evaluation.md"


def test_the_scorer_gives_what_the_page_works_out_by_hand(tmp_path: Path) -> None:
    """The example line of docs/evaluation.md, and the values of its table."""
    section = PAGE.read_text(encoding="utf-8").partition("## ERASER's results format")[2]
    line = json.loads(section.partition("```json\n")[2].partition("```")[0])
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "d1").write_text("the plot was not good")
    marked = {"docid": "d1", "start_token": 3, "end_token": 5}
    truth = {"annotation_id": "d1", "classification": "bad", "evidences": [[marked]]}
    (tmp_path / "test.jsonl").write_text(json.dumps(truth) + "\n")
    table = section.partition("Worked example")[2].partition("\n## ")[0]
    values = re.findall(r"^\| `(\w+)` \| .*= ([\d.]+) \|$", table, re.MULTILINE)
    expected = {name: float(value) for name, value in values}
    found = score(tmp_path / "results.jsonl", tmp_path, "test")
    assert found == pytest.approx(expected, abs=5e-7)


def test_the_scorer_gives_a_document_without_a_mark_one_half() -> None:
    truth = [[False, False], [True, False]]
    assert token_curves(truth, [[0.1, 0.2], [1.0, 0.0]])["auprc"] == pytest.approx(0.75)


# --- directories of the benchmark's three kinds ----------------------------------------------


def words(text: str) -> list[str]:
    return text.split(" ")


def evidences(row: Row, docid: str, shift: int = 0) -> list[dict[str, Any]]:
    """The planted evidence of a built-in row, a span of words each."""
    found = []
    for start, end in (row.rationale or ((),))[0]:
        first = row.texts[0][:start].count(" ")
        last = first + row.texts[0][start:end].count(" ")
        token = {"start_token": first + shift, "end_token": last + 1 + shift}
        found.append({"docid": docid, **token, "text": row.texts[0][start:end]})
    return found


def movies(row: Row, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """One document, the same query everywhere, an evidence a group."""
    document = row.texts[0].replace(" , ", " ,\n", 1).replace(" . ", " .\n\n ", 1) + "\n"
    groups = [[found] for found in evidences(row, name)]
    return {"evidences": groups, "query": "what is the sentiment ?"}, {name: document}


def esnli(row: Row, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Two documents, evidence in the second alone."""
    pair = {f"{name}_premise": "we went on a monday .", f"{name}_hypothesis": row.texts[0]}
    return {"evidences": [evidences(row, f"{name}_hypothesis")], "query": ""}, pair


def boolq(row: Row, name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """One document, listed, with two blanks in it, and a query of its own."""
    found = {"evidences": [evidences(row, f"{name}.doc", 2)], "docids": [f"{name}.doc"]}
    return found | {"query": f"was it good {len(name)} {name[-1]}"}, {
        f"{name}.doc": "well  " + row.texts[0]
    }


KINDS: dict[str, tuple[Callable[[Row, str], tuple[dict[str, Any], dict[str, str]]], bool]] = {
    "movies": (movies, False),
    "esnli": (esnli, True),
    "boolq": (boolq, True),
}


def lay(folder: Path, kind: str) -> Path:
    """A small ERASER directory of the built-in rows."""
    make, in_one_file = KINDS[kind]
    folder.mkdir()
    docs: dict[str, str] = {}
    for split, part, count in (("train", "train", 96), ("val", "dev", 24), ("test", "test", 24)):
        lines = []
        for number, row in enumerate(read_rows("builtin", part)[:count]):
            name = f"{split}R_{number}"
            fields, texts = make(row, name)
            lines.append({"annotation_id": name, "classification": row.label, **fields})
            docs |= texts
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    if in_one_file:
        text = "".join(json.dumps({"docid": d, "document": t}) + "\n" for d, t in docs.items())
        (folder / "docs.jsonl").write_text(text, encoding="utf-8")
    else:
        (folder / "docs").mkdir()
        for docid, content in docs.items():
            (folder / "docs" / docid).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny model trained a little on each kind."""
    place = tmp_path_factory.mktemp(request.param)
    folder = lay(place / "data", request.param)
    run = train(TrainConfig(data=str(folder), **QUICK), output=place / "runs", name="run")
    with torch.no_grad():  # so little training makes a timid model, whom no deletion impresses
        for parameter in run.backbone.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    save_weights(run.path, run.module, run.backbone)
    return load_run(run.path)


def test_what_is_exported_scores_as_ivra_says(trained: Run, tmp_path: Path) -> None:
    path, target = tmp_path / "results.jsonl", tmp_path / "figures.json"
    arguments = ["eval", str(trained.path), "--aopc", "--explainers", "random", "--json", target]
    called = CliRunner().invoke(
        main, [str(a) for a in [*arguments, "--export-eraser", path]], catch_exceptions=False
    )
    assert called.exit_code == 0, called.output
    assert f"ERASER: {path}" in called.output
    written = json.loads(target.read_text())
    scored = score(path, Path(trained.config.data), "test")
    own = written["eraser"]
    assert own.keys() == scored.keys() | {"explainer", "share"}
    assert {name: own[name] for name in scored} == pytest.approx(scored, abs=1e-6)
    figures = written["figures"]["ivra"]
    assert scored["comprehensiveness_aopc"] == pytest.approx(figures["comp"], abs=1e-6)
    assert scored["sufficiency_aopc"] == pytest.approx(figures["suff"], abs=1e-6)
    assert scored["comprehensiveness_aopc_paper"] == pytest.approx(
        figures["comp"] * 5 / 6, abs=1e-6
    )
    results = json_lines(path)
    assert [result["annotation_id"] for result in results] == [f"testR_{i}" for i in range(24)]
    gold = [line["classification"] for line in json_lines(Path(trained.config.data) / "test.jsonl")]
    right = [r["classification"] == label for r, label in zip(results, gold, strict=True)]
    accuracy = ivra.evaluate(trained, ivra.EvalConfig(metrics=("accuracy",)))["accuracy"]
    assert accuracy["accuracy"] == pytest.approx(mean([float(yes) for yes in right]))
    drops = [
        abs(r["classification_scores"]["positive"] - entry[key]["positive"])
        for r in results
        for entry in r["thresholded_scores"]
        for key in entry.keys() - {"threshold"}
    ]
    assert max(drops) > 0.01  # the model cares about what is deleted


def test_other_bins_and_explainers_and_splits(trained: Run, tmp_path: Path) -> None:
    """The five bins are always there, beside the run's own."""
    config = trained.config.model_copy(update={"bins": (0.3, 33.0)})
    run = Run(trained.path, config, trained.backbone, trained.module, trained.record)
    path = tmp_path / "results.jsonl"
    found = ivra.export_eraser(path, run, ivra.EvalConfig(split="dev"), "input-x-gradient")
    assert found["explainer"] == "input-x-gradient"
    scored = score(path, Path(config.data), "val")
    assert {name: found[name] for name in scored} == pytest.approx(scored, abs=1e-6)
    thresholds = [entry["threshold"] for entry in json_lines(path)[0]["thresholded_scores"]]
    assert thresholds == [0.003, 0.01, 0.05, 0.1, 0.2, 0.33, 0.5]


def test_data_that_is_not_erasers_is_exported_with_its_own_ids(
    trained: Run, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [
        {"id": "one", "text": "a  good\tfilm", "label": "positive", "rationale": [[3, 7]]},
        {"id": "two", "text": "very dull", "label": "negative"},
    ]
    if len(trained.config.data) and (Path(trained.config.data) / "docs.jsonl").exists():
        for line in lines:
            line |= {"premise": line.pop("text"), "hypothesis": "we liked it"}
            if "rationale" in line:
                line["rationale"] = {"premise": line["rationale"], "hypothesis": []}
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = tmp_path / "results.jsonl"
    ivra.export_eraser(path, trained, ivra.EvalConfig(data=str(rows)))
    results = json_lines(path)
    pair = "premise" in lines[0]
    for result, count in zip(results, (3, 2), strict=True):
        name = result["annotation_id"]
        found = {
            document["docid"]: len(document["soft_rationale_predictions"])
            for document in result["rationales"]
        }
        both = {f"{name}_premise": count, f"{name}_hypothesis": 3}
        assert found == (both if pair else {name: count})
    verify(results, {d["docid"]: d["soft_rationale_predictions"] for r in results
                     for d in r["rationales"]})  # fmt: skip


@pytest.mark.parametrize("place", ["gone/results.jsonl", "."])
def test_a_place_that_cannot_be_written_is_one_line(
    trained: Run, tmp_path: Path, place: str
) -> None:
    target = tmp_path / "figures.json"
    arguments = ["eval", str(trained.path), "--accuracy", "--rows", "4", "--json", str(target)]
    called = CliRunner().invoke(main, [*arguments, "--export-eraser", str(tmp_path / place)])
    assert called.exit_code == 2
    assert not target.exists()
    assert "Traceback" not in called.output
