"""``evaluate``: what stands in its result, and what it refuses."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import entr
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from ivra.data import fingerprint
from ivra.errors import IvraError
from ivra.evaluation import (
    BASELINES,
    METRICS,
    PRESETS,
    AopcSettings,
    EvalConfig,
    Simulation,
    aopc,
    evaluate,
    predict,
    token_scores,
)
from ivra.evaluation.agreement import TOKEN_KEYS, WORD_KEYS
from ivra.explainers import Explainer, ModuleExplainer
from ivra.training import Run, read_splits

MakeRun = Callable[[list[dict]], Run]
QUICK = {"students": 1, "student_rows": 16, "student_epochs": 1.0}
AOPC_MEANS = {
    "comp", "suff", "clipped_comp", "clipped_suff", "norm_comp", "norm_suff", "important",
}  # fmt: skip
AOPC = AOPC_MEANS | {
    "comp_by_bin", "suff_by_bin", "norm_comp_by_bin", "norm_suff_by_bin", "important_by_threshold",
}  # fmt: skip
SIM = {"sim", "sim_quartiles", "sim_values", "sim_correct"}
CONS = {"cons", "cons_batches", "cons_batches_undefined"}
PLAUSIBILITY = {*TOKEN_KEYS.values(), *WORD_KEYS.values()}
PLAUSIBILITY -= {"recall_at", "word_recall_at"}
PLAUSIBILITY |= {f"{word}recall_at_{k}" for word in ("", "word_") for k in ("marked", "5")}
ENTROPY = {"entropy", "entropy_normalised", "effective_tokens", "support"}


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
        "seed", "config", "training", "versions", "environment", "seconds", "tests",
    } == set(result)  # fmt: skip
    figures = result["figures"]
    assert list(figures) == ["ivra", *BASELINES, "none", "trivial", "true"]
    for name in ("ivra", *BASELINES):
        assert AOPC | SIM | CONS | PLAUSIBILITY | ENTROPY | {"intervals"} == set(figures[name])
        assert set(figures[name]["intervals"]) == (
            AOPC_MEANS
            | {"sim", "recall_at_marked", "recall_at_5", "iou_f1", "token_f1"}
            | ENTROPY
            | {key for key in PLAUSIBILITY if not key.endswith("rows")}
        )
        for key, (low, high) in figures[name]["intervals"].items():
            assert low <= figures[name][key] <= high, key
        assert len(figures[name]["comp_by_bin"]) == len(run.config.bins)
        assert -1 <= figures[name]["comp"] <= 1
        assert -1 <= figures[name]["cons"] <= 1
        assert 0 <= figures[name]["plausibility"] <= 1
    for name in ("none", "trivial", "true"):
        assert set(figures[name]) == SIM | {"intervals"}
    assert result["undefined"] == {}
    assert result["seed"] == 0
    assert result["settings"]["sim"]["rows"] == 16
    assert result["settings"]["aopc"]["bins"] == [10.0, 50.0]
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
        ("aopc", AOPC | {"intervals"}),
        ("cons", CONS),
        ("plausibility", PLAUSIBILITY | {"intervals"}),
        ("sim", SIM | {"intervals"}),
        ("entropy", ENTROPY | {"intervals"}),
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
    figures = result["figures"]["ivra"]
    counts = {key for key in PLAUSIBILITY if key.endswith("rows")}
    assert {figures.pop(key) for key in counts} == {0}
    assert (figures.pop("cons_batches"), figures.pop("cons_batches_undefined")) == (0, 1)
    assert set(figures.values()) == {None}
    assert set(result["undefined"]) == set(figures)
    assert all(result["undefined"].values())


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
        ({"controls": ("trivia",)}, "unknown control 'trivia'. Did you mean 'trivial'"),
        ({"recall_k": (5, 0)}, "recall_k has 0: expected numbers of tokens, at least 1"),
        ({"resamples": -1}, "resamples is -1: expected 0 or more"),
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


def test_every_interval_is_the_bootstrap_of_its_rows(
    make_run: MakeRun, records: list[dict]
) -> None:
    """With AOPC and entropy computed anew, row by row."""
    run = make_run(records)
    config = EvalConfig(metrics=("aopc", "entropy"), explainers=(), resamples=100, seed=3)
    figures = evaluate(run, config)["figures"]["ivra"]
    items = run.encoder.items(read_splits(run.config).test)
    scores = token_scores(ModuleExplainer(run.module), run.backbone, items)
    found = aopc(run.backbone, items, {"ivra": scores}, AopcSettings(bins=run.config.bins))["ivra"]
    entropies = [float(entr(row.double().numpy()).sum()) for row in scores]
    generator = np.random.default_rng(3)
    draws = [generator.integers(0, len(items), len(items)) for _ in range(100)]
    for key, rows in (("comp", found.comp), ("suff", found.suff), ("entropy", entropies)):
        values = np.asarray(rows, dtype=float)
        assert figures[key] == pytest.approx(values.mean(), abs=1e-6)
        means = [values[draw].mean() for draw in draws]
        assert figures["intervals"][key] == pytest.approx(
            np.percentile(means, [2.5, 97.5]), abs=1e-6
        )


def test_without_resamples_there_are_no_intervals(make_run: MakeRun, records: list[dict]) -> None:
    config = EvalConfig(metrics=("accuracy", "aopc", "plausibility"), resamples=0, rows=6)
    result = evaluate(make_run(records), config)
    assert all("intervals" not in figures for figures in result["figures"].values())
    assert result["accuracy"]["intervals"] == {}


def test_students_are_compared_by_the_rows_they_get_right(
    make_run: MakeRun, records: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(1)

    def drawn(teacher: object, explainers: list[Explainer], *_: object) -> dict[str, Simulation]:
        names = ("none", *(explainer.name for explainer in explainers))
        return {
            n: Simulation.of(generator.random((1, 20)) < share)
            for n, share in zip(names, (0.3, 0.9, 0.7, 0.4), strict=True)
        }

    monkeypatch.setattr("ivra.evaluation.students.simulation_accuracy", drawn)
    config = EvalConfig(metrics=("sim",), explainers=("attention",), controls=("trivial",))
    result = evaluate(make_run(records), config)
    assert list(result["figures"]) == ["ivra", "attention", "none", "trivial"]
    assert result["settings"]["sim"]["controls"] == ["none", "trivial"]
    pairs = [(test["first"], test["second"]) for test in result["tests"]]
    assert pairs == [
        ("ivra", "none"),
        ("attention", "none"),
        ("trivial", "none"),
        ("ivra", "attention"),
        ("ivra", "trivial"),
    ]
    for test in result["tests"]:
        first, second = (
            result["figures"][test[side]]["sim_correct"][0] for side in ("first", "second")
        )
        wins = sum(a > b for a, b in zip(first, second, strict=True))
        losses = sum(a < b for a, b in zip(first, second, strict=True))
        assert (test["wins"], test["losses"]) == (wins, losses)
        assert test["difference"] == pytest.approx((wins - losses) / len(records))
        p_value = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert test["p_value"] == pytest.approx(p_value)
        low, high = test["interval"]
        assert low <= test["difference"] <= high
    assert result["tests"][0]["p_value"] < 0.05


def test_true_rationales_teach_only_where_training_rows_carry_them(
    make_run: MakeRun, records: list[dict]
) -> None:
    run = make_run(without(records, "rationale"))
    result = evaluate(run, EvalConfig(metrics=("sim",), explainers=(), rows=4, **QUICK))
    assert list(result["figures"]) == ["ivra", "none", "random", "trivial"]
    with pytest.raises(IvraError, match=r"^the control 'true' needs training rows with a 'rati"):
        evaluate(run, EvalConfig(metrics=("sim",), controls=("true",)))


def test_the_seed_is_that_of_the_random_scores_too(make_run: MakeRun, records: list[dict]) -> None:
    run = make_run(records)
    figures = [
        evaluate(run, EvalConfig(metrics=("plausibility",), explainers=("random",), seed=seed))[
            "figures"
        ]
        for seed in (0, 0, 1)
    ]
    assert figures[0] == figures[1]
    assert figures[0]["random"]["plausibility"] != figures[2]["random"]["plausibility"]
    assert figures[0]["ivra"]["plausibility"] == figures[2]["ivra"]["plausibility"]


def test_a_backbone_that_was_not_trained_is_the_plain_model(
    make_run: MakeRun, records: list[dict]
) -> None:
    found = evaluate(make_run(records), EvalConfig(metrics=("accuracy",)))["accuracy"]
    assert found["plain"]["accuracy"] == found["accuracy"]
    assert found["plain"]["macro_f1"] == found["macro_f1"]
    assert (found["plain"]["difference"], found["plain"]["p_value"]) == (0.0, 1.0)
    assert "left the backbone alone" in found["plain_note"]
    low, high = found["intervals"]["accuracy"]
    assert low <= found["accuracy"] <= high


def test_the_choices_of_aopc_reach_the_figures_and_the_result(
    make_run: MakeRun, records: list[dict]
) -> None:
    run = make_run(records)
    quick = {"metrics": ("aopc",), "explainers": (), "rows": 6}
    plain = evaluate(run, EvalConfig(**quick))
    unirex = evaluate(run, EvalConfig(**quick, aopc=PRESETS["unirex"], token_budget=64))
    assert unirex["settings"]["aopc"]["preset"] == "unirex"
    assert unirex["settings"]["aopc"]["protected"] == "first"
    assert len(unirex["figures"]["ivra"]["comp_by_bin"]) == 5
    assert unirex["figures"]["ivra"]["comp"] == pytest.approx(
        sum(unirex["figures"]["ivra"]["comp_by_bin"]) / 6, abs=1e-6
    )
    assert plain["figures"]["ivra"]["comp"] != unirex["figures"]["ivra"]["comp"]
    with pytest.raises(IvraError, match=r"^token_budget is 0: expected at least 1"):
        EvalConfig(token_budget=0)
