"""``evaluate``: what stands in its result, and what it refuses."""

import json
from collections.abc import Callable

import pytest
from sklearn.metrics import f1_score

from ivra.data import fingerprint
from ivra.errors import IvraError
from ivra.evaluation import BASELINES, METRICS, EvalConfig, evaluate, predict
from ivra.training import Run, read_splits

MakeRun = Callable[[list[dict]], Run]
QUICK = {"students": 1, "student_rows": 16, "student_epochs": 1.0}


def without(records: list[dict], key: str) -> list[dict]:
    return [{name: value for name, value in r.items() if name != key} for r in records]


def test_all_metrics_stand_in_a_result_that_json_can_hold(
    make_run: MakeRun, records: list[dict]
) -> None:
    run, told = make_run(records), []
    result = evaluate(run, EvalConfig(**QUICK), told.append)
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again == json.loads(json.dumps(result))
    assert {
        "run", "model", "criteria", "data", "figures", "undefined", "accuracy", "settings",
        "seed", "config", "training", "versions", "seconds",
    } == set(result)  # fmt: skip
    figures = result["figures"]
    assert list(figures) == ["ivra", *BASELINES, "none"]
    for name in ("ivra", *BASELINES):
        assert {
            "comp", "suff", "comp_by_bin", "suff_by_bin", "sim", "sim_quartiles", "sim_values",
            "cons", "plausibility", "plausibility_rows",
        } == set(figures[name])  # fmt: skip
        assert len(figures[name]["comp_by_bin"]) == len(run.config.bins)
        assert -1 <= figures[name]["comp"] <= 1
        assert -1 <= figures[name]["cons"] <= 1
        assert 0 <= figures[name]["plausibility"] <= 1
    assert set(figures["none"]) == {"sim", "sim_quartiles", "sim_values"}
    assert result["undefined"] == {}
    assert result["seed"] == 0
    assert result["settings"]["sim"]["rows"] == 16
    assert result["settings"]["aopc"]["bins_percent"] == [10.0, 50.0]
    assert "AOPC" in told
    assert "student of ivra" in told


def test_the_data_and_the_accuracy_are_those_of_the_rows(
    make_run: MakeRun, records: list[dict]
) -> None:
    run = make_run(records)
    result = evaluate(run, EvalConfig(metrics=("accuracy",), rows=12))
    rows = read_splits(run.config).test[:12]
    assert result["data"] == {
        "source": run.config.data,
        "split": "test",
        "rows": 12,
        "sha256": fingerprint(rows),
    }
    items = run.encoder.items(rows)
    predicted = predict(run.backbone, items).argmax(-1).tolist()
    gold = [item.label for item in items]
    right = [p == g for p, g in zip(predicted, gold, strict=True)]
    assert result["accuracy"]["accuracy"] == sum(right) / 12
    assert result["accuracy"]["macro_f1"] == f1_score(gold, predicted, average="macro")


@pytest.mark.parametrize(
    ("metric", "keys"),
    [
        ("aopc", {"comp", "suff", "comp_by_bin", "suff_by_bin"}),
        ("cons", {"cons"}),
        ("plausibility", {"plausibility", "plausibility_rows"}),
        ("sim", {"sim", "sim_quartiles", "sim_values"}),
    ],
)
def test_a_metric_asked_for_comes_alone(
    make_run: MakeRun, records: list[dict], metric: str, keys: set[str]
) -> None:
    config = EvalConfig(metrics=(metric,), explainers=("random",), rows=8, **QUICK)
    result = evaluate(make_run(records), config)
    assert set(result["figures"]["ivra"]) == set(result["figures"]["random"]) == keys
    assert "accuracy" not in result


def test_without_labels_and_rationales_the_other_metrics_are_measured(
    make_run: MakeRun, records: list[dict], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run = make_run(records)
    bare = tmp_path_factory.mktemp("bare") / "bare.jsonl"
    lines = without(without(records, "label"), "rationale")
    bare.write_text("".join(json.dumps(r) + "\n" for r in lines), encoding="utf-8")
    result = evaluate(run, EvalConfig(data=str(bare), explainers=(), **QUICK))
    assert {"comp", "suff", "cons", "sim"} <= set(result["figures"]["ivra"])
    assert "plausibility" not in result["figures"]["ivra"]
    assert "accuracy" not in result
    for metric, needs in (("accuracy", "a label in every row"), ("plausibility", "a 'rationale'")):
        with pytest.raises(IvraError, match=rf"^metric '{metric}' needs .*{needs}.*leave it out"):
            evaluate(run, EvalConfig(data=str(bare), metrics=(metric,)))


def test_figures_that_are_undefined_say_why(make_run: MakeRun, records: list[dict]) -> None:
    marked = [record | {"rationale": []} for record in records[:4]]
    run = make_run(marked)
    config = EvalConfig(metrics=("cons", "plausibility"), rows=2, explainers=("random",))
    result = evaluate(run, config)
    assert result["figures"]["ivra"] == {
        "cons": None,
        "plausibility": None,
        "plausibility_rows": 0,
    }
    assert set(result["undefined"]) == {"cons", "plausibility"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"metrics": ("aocp",)},
            f"unknown metric 'aocp'.* Choose from: {', '.join(sorted(METRICS))}",
        ),
        ({"students": 0}, "students is 0: expected at least 1"),
        ({"student_rows": 0}, "student_rows is 0: expected at least 1"),
        ({"rows": 0}, "rows is 0: expected at least 1"),
        ({"student_epochs": -1.0}, "student_epochs is -1.0: expected more than 0"),
    ],
)
def test_a_config_out_of_range_is_one_line(values: dict, message: str) -> None:
    with pytest.raises(IvraError, match=message):
        EvalConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset'. Did you mean 'test'"),
        ({"explainers": ("randon",)}, "unknown explainer 'randon'. Did you mean 'random'"),
    ],
)
def test_unknown_parts_and_explainers_are_told(
    make_run: MakeRun, records: list[dict], values: dict, message: str
) -> None:
    with pytest.raises(IvraError, match=message):
        evaluate(make_run(records), EvalConfig(**values))
