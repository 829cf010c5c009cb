"""Questions and their answers from data to a run and back: the commands and the functions."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import ivra
from ivra.api import export_eraser
from ivra.attention import LEVELS
from ivra.cli.main import main
from ivra.data import Row
from ivra.errors import IvraError
from ivra.evaluation import EvalConfig, evaluate
from ivra.reports import explain_json
from ivra.training import Run, TrainConfig, load_run, train
from ivra.training.task import task_of


def config_of(folder: Path, **values: object) -> TrainConfig:
    given: dict[str, object] = {
        "criteria": "comp,suff,cons,sim",
        "data": str(folder),
        "max_length": 24,
        "doc_stride": 6,
        "batch_size": 16,
        "finetune_epochs": 1.0,
        "max_steps": 3,
        "validations": 1,
        "validation_rows": 16,
        "student_rows": 16,
        "student_life": 2,
    }
    return TrainConfig(**(given | values))


@pytest.fixture(scope="module")
def run(question_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All criteria that questions allow and all levels, in windows."""
    config = config_of(question_folder, levels=LEVELS)
    return train(config, output=tmp_path_factory.mktemp("runs"), name="qa")


def test_a_run_learns_and_says_what_it_is(run: Run) -> None:
    assert run.record["task"] == "question answering"
    right = run.record["exact_match"]
    assert isinstance(right, dict)
    assert 0 <= right["after"] == right["before"] <= 1
    assert "accuracy" not in run.record
    entries = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    losses = [e["terms"]["task"] for e in entries if e["stage"] == "finetune" and "score" not in e]
    assert losses[-1] < losses[0]
    final = [e for e in entries if e["stage"] == "criteria" and e["split"] == "valid"][-1]
    assert set(final["terms"]) == {"comp", "suff", "cons", "sim"}
    assert run.module.readout.shape == (1, 2, run.module.sizes.layers, run.module.sizes.heads)


def test_a_run_that_is_loaded_is_the_run(run: Run) -> None:
    loaded = load_run(run.path)
    assert vars(loaded.backbone.task) == vars(run.backbone.task)
    texts = [("the plot ?", "the plot was dull . the music was good .")]
    one, other = (explain_json(ivra.explain(r, texts)) for r in (run, loaded))
    assert one == other


def test_every_figure_that_is_defined_is_there_and_the_rest_is_named(run: Run) -> None:
    config = EvalConfig(students=1, student_rows=16, student_epochs=1.0, resamples=50)
    result = evaluate(run, config)
    answers = result["answers"]
    assert isinstance(answers, dict)
    assert set(answers["intervals"]) == {"exact_match", "f1"}
    assert result["undefined"] == {
        "plausibility": "rows have no 'rationale', and an answer is none"
    }
    figures = result["figures"]
    assert isinstance(figures, dict)
    for name in ("ivra", "untrained", "attention", "random"):
        assert {"comp", "suff", "sim", "cons", "entropy"} <= set(figures[name])
    assert {"none", "trivial"} <= set(figures)
    assert result["settings"]["aopc"]["removal"] == "mask"  # type: ignore[index]
    rows = ivra.explain(run, ivra.training.read_splits(run.config).test)
    right = [row.correct for row in rows]
    assert answers["exact_match"] == sum(map(bool, right)) / len(right)
    f1 = [_f1(row.prediction, row.label or "") for row in rows]
    assert answers["f1"] == pytest.approx(sum(f1) / len(f1))


def _f1(said: str, gold: str) -> float:
    left, right = ([w for w in t.split() if w not in ("the", ".", "?")] for t in (said, gold))
    shared = sum((Counter(left) & Counter(right)).values())
    return 2 * shared / (len(left) + len(right)) if shared else 0.0


def test_the_answer_is_shown_where_it_stands(run: Run) -> None:
    context = "the plot was dull . the music was good . the soup was bad . we had the soup ."
    (row,) = ivra.explain(run, [("the plot ?", context)])
    assert row.answer is not None
    assert context[slice(*row.answer)] == row.prediction
    assert row.probabilities == {row.prediction: row.confidence}
    assert (row.label, row.correct) == (None, None)
    assert sum(row.saliency) == pytest.approx(1, abs=1e-5)
    for segment, value in zip(row.segment, row.saliency, strict=True):
        assert segment == 1 or value == 0
    (found,) = explain_json([row])
    assert found["answer"] == {"start": row.answer[0], "end": row.answer[1]}
    assert found["texts"] == ["the plot ?", context]


def test_long_contexts_are_compared_as_they_are_judged(run: Run) -> None:
    """A row of several windows is one row, judged on the window that holds the answer."""
    rows = ivra.training.read_splits(run.config).test[:4]
    long = [
        replace(row, texts=(row.texts[0], f"{row.texts[1]} {row.texts[1]}"), answers=None)
        for row in rows
    ]
    names = ("ivra", "attention")
    compared = ivra.compare(run, long, names)
    assert len(compared) == len(long) * len(names) < len(run.encoder.items(long, labelled=False))
    again = ivra.explain(run, long, names)
    assert explain_json([each.row for each in compared]) == explain_json(again)
    small = ivra.compare(run, long, names, batch_tokens=1)
    assert [each.comp for each in small] == pytest.approx([each.comp for each in compared])
    config = EvalConfig(metrics=("aopc",), rows=4, explainers=("attention",), resamples=0)
    figures = evaluate(run, config)["figures"]
    short = ivra.compare(run, rows, ("ivra",))
    assert isinstance(figures, dict)
    assert figures["ivra"]["comp"] == pytest.approx(sum(e.comp or 0 for e in short) / 4, abs=1e-5)


def test_the_question_is_explained_where_asked(question_folder: Path, tmp_path: Path) -> None:
    config = config_of(
        question_folder, criteria="comp", question_tokens="explainable", train="both"
    )
    trained = train(config, output=tmp_path, name="both")
    (row,) = ivra.explain(trained, [("the plot ?", "the plot was dull .")])
    assert {s for s, e in zip(row.segment, row.explainable, strict=True) if e} == {0, 1}
    answers = evaluate(trained, EvalConfig(metrics=("accuracy",), rows=8))["answers"]
    assert isinstance(answers, dict)
    assert answers["plain_note"] == "the model after fine-tuning, before the criteria"
    assert set(answers["plain"]) >= {"exact_match", "f1", "difference", "p_value"}
    terms = (trained.path / "log.jsonl").read_text().splitlines()[-1]
    assert "exact_match" in json.loads(terms)["terms"]


@pytest.mark.parametrize("gradient", ["straight-through", "sigmoid", "sampled"])
@pytest.mark.parametrize("removal", ["attention", "embedding"])
def test_both_removals_train_with_every_kind_of_gradient(
    question_folder: Path, tmp_path: Path, removal: str, gradient: str
) -> None:
    config = config_of(
        question_folder, criteria="comp,suff", removal=removal, topk_gradient=gradient
    )
    found = train(config, output=tmp_path, name="run")
    assert all(p.isfinite().all() for p in found.module.parameters())


def test_the_commands(question_folder: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int = 0) -> str:
        found = CliRunner().invoke(main, list(arguments))
        assert found.exit_code == code, found.output
        return found.output

    small = ["--finetune-epochs", "1", "--max-steps", "2", "--validation-rows", "8"]
    target = ["--output", str(tmp_path), "--name", "one"]
    data = ["--data", str(question_folder), "--criteria", "comp,suff"]
    assert "exact match 0" in call("train", *data, *small, *target)
    path = str(tmp_path / "one")
    said = call("eval", path, "--aopc", "--accuracy", "--html", str(tmp_path / "page.html"))
    assert "COMP" in said
    assert "exact match" in said
    page = (tmp_path / "page.html").read_text()
    assert "Exact match" in page
    assert "the model\u2019s answer" in page
    assert "plausibility is not measured" in call(
        "eval",
        path,
        "--rows",
        "4",
        "--students",
        "1",
        "--student-rows",
        "8",
        "--student-epochs",
        "1",
    )
    json_path = str(tmp_path / "one.json")
    question = ["--question", "the plot ?", "--context", "the plot was dull ."]
    said = call("explain", path, *question, "--json", json_path)
    (found,) = json.loads(Path(json_path).read_text())
    assert found["prediction"] in said
    assert "the plot ?" in said
    said = call("compare", path, *question, "--explainers=ivra", "--explain-batch-tokens=64")
    assert found["prediction"] in said
    assert "COMP" in said
    for arguments, words in (
        (
            ["explain", path, "--text", "one"],
            "text 1: expected a question and its context,",
        ),
        (
            ["eval", path, "--export-eraser", str(tmp_path / "e")],
            "ERASER's results format holds",
        ),
        (["eval", path, "--plausibility"], "metric 'plausibility' needs rows with a 'rationale'"),
        (
            ["train", *data[:2], "--criteria", "plaus", *target[:2]],
            "'plaus' needs rows with a",
        ),
    ):
        assert words in call(*arguments, code=2)


def test_what_questions_do_not_allow_is_one_line_before_any_work(
    question_folder: Path, tmp_path: Path
) -> None:
    options = {"cons": {"form": "clustering"}}
    config = config_of(question_folder, criteria="cons", options=options)
    with pytest.raises(IvraError, match=r"^criterion 'cons' with form=clustering needs classes"):
        train(config, output=tmp_path, name="x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(IvraError, match="no window of 14 tokens holds a whole answer"):
        train(_unanswerable(tmp_path), output=tmp_path, name="x")


def _unanswerable(folder: Path) -> TrainConfig:
    text = "the plot was dull and so was all of the music and the soup"
    row = {"question": "the ?", "context": text, "answers": [{"text": text, "start": 0}]}
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text(json.dumps(row))
    return config_of(folder, max_length=14, doc_stride=2)


def test_training_questions_need_an_answer_each(questions: Callable[[int, int], list[Row]]) -> None:
    rows = [*questions(2, 0), Row("bare", ("a", "b"), where="f:3", answers=())]
    config = TrainConfig()
    with pytest.raises(IvraError, match=r"^f:3: no answer: every training question needs one$"):
        task_of(rows, config)
    assert task_of(rows[:2], config).name == "question answering"
    assert task_of([Row("r", ("a", "b"), "x")], config).name == "classification"


def test_export_says_that_it_knows_classes_alone(run: Run, tmp_path: Path) -> None:
    with pytest.raises(IvraError, match=r"^ERASER's results format holds classes"):
        export_eraser(tmp_path / "x.jsonl", run)
    assert not (tmp_path / "x.jsonl").exists()
