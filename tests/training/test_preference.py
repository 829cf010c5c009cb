"""One module for every trade-off, and modules that start from others'."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from scipy.stats import beta, binomtest, chisquare, kstest
from torch import nn

from ivra.attention import AttentionSizes, InterpretableAttention, Shifted
from ivra.errors import IvraError
from ivra.training import CriteriaStage, Run, TrainConfig, Validation, load_run, make_config, train
from ivra.training.combining import Combined, Mixer, Mixing
from ivra.training.soup import start_from

Make = Callable[..., TrainConfig]
SIZES = AttentionSizes(2, 2, 4, 4, 2)


@pytest.fixture(scope="module")
def alone(make: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each criterion alone, its last weights kept, on one model."""
    output = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "validate", lambda self: Validation(None, {}))
        first = train(make(criteria="comp"), output=output, name="comp")
        same = {"model": str(first.path / "model"), "finetune": "never"}
        second = train(make(criteria="suff", **same), output=output, name="suff")
    return {"comp": first, "suff": second}


def loud(module: InterpretableAttention) -> InterpretableAttention:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("reading", ["gains", "coefficients", "literal"])
def test_a_coefficient_is_its_base_and_the_preferred_shifts(reading: str) -> None:
    levels = ("feature", "head", "layer")
    module = loud(InterpretableAttention(SIZES, levels, reading, preferences=("a", "b", "c")))
    plain = InterpretableAttention(SIZES, levels, reading)
    names = [name for name, _ in plain.named_parameters()]
    module.prefer({"a": 3.0, "c": 1.0})
    for name in names:
        base = module.get_parameter(f"parametrizations.{name}.original")
        delta = module.get_parameter(f"parametrizations.{name}.0.delta")
        expected = base + 0.75 * delta[0] + 0.25 * delta[2]
        torch.testing.assert_close(getattr(module, name), expected)
    module.prefer()
    for name in names:
        delta = module.get_parameter(f"parametrizations.{name}.0.delta")
        base = module.get_parameter(f"parametrizations.{name}.original")
        torch.testing.assert_close(getattr(module, name), base + delta.mean(0))


def test_it_starts_as_the_module_that_knows_no_preference() -> None:
    module = InterpretableAttention(SIZES, preferences=("a", "b"))
    plain = InterpretableAttention(SIZES)
    for shares in ({"a": 1.0}, {"a": 0.2, "b": 0.8}):
        module.prefer(shares)
        torch.testing.assert_close(module.feature_weights(), plain.feature_weights())
        torch.testing.assert_close(module.head_coefficients(), plain.head_coefficients())


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (
            {"cmop": 1.0},
            "unknown criterion of the preference 'cmop'. Did you mean 'comp'? Choose from: comp, "
            "suff.",
        ),
        ({"comp": -1.0}, "preference comp=-1.0: expected a number of at least 0"),
        (
            {"comp": 0.0},
            "the preference has no share above 0: expected one at least, as in comp=1",
        ),
    ],
)
def test_preferences_that_do_not_fit_are_one_line(shares: dict[str, float], message: str) -> None:
    module = InterpretableAttention(SIZES, preferences=("comp", "suff"))
    with pytest.raises(IvraError) as caught:
        module.prefer(shares)
    assert str(caught.value) == message
    assert module.preference.shares.tolist() == [0.5, 0.5]


def test_a_module_of_one_trade_off_has_no_preference() -> None:
    with pytest.raises(IvraError, match="knows one trade-off only: expected a run that was"):
        InterpretableAttention(SIZES).prefer({"comp": 1.0})


def drawing(steps: int, criteria: Sequence[str] = ("a", "b"), seed: int = 0) -> list[list[float]]:
    """The preferences of so many steps."""
    point = nn.Parameter(torch.ones(1))
    weights = dict.fromkeys(criteria, 1.0)
    mixer = Mixer(Mixing("preference"), weights, list(criteria), [point], seed=seed)
    drawn = []
    for _ in range(steps):
        shares = mixer.preference()
        assert shares is not None
        assert shares == mixer.preference(), "the parts of a step have one"
        drawn.append([shares[name] for name in criteria])
        mixer.advance()
    return drawn


def test_most_steps_are_for_one_criterion_and_the_others_anywhere() -> None:
    drawn = torch.tensor(drawing(900, ("a", "b", "c")))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(900))
    corner = drawn.max(-1).values == 1
    assert binomtest(int(corner.sum()), 900, 0.75).pvalue > 0.01
    assert chisquare(drawn[corner].sum(0)).pvalue > 0.01, "each as often as the others"
    rest = drawn[~corner]
    for share in rest.T.tolist():
        assert kstest(share, beta(1, 2).cdf).pvalue > 0.01, "of Dirichlet(1, 1, 1)"
    assert drawing(5) == drawing(5)
    assert drawing(5) != drawing(5, seed=1)


def test_every_batch_is_judged_by_the_preference_it_is_explained_by() -> None:
    point = nn.Parameter(torch.ones(1))
    mixing = Mixing("preference", normalise="none")
    mixer = Mixer(mixing, {"task": 1.0, "a": 1.0, "b": 2.0}, ["a", "b"], [point])
    for _ in range(20):
        shares = mixer.preference()
        assert shares is not None
        losses = {"task": 5 * point[0], "a": 3 * point[0], "b": 7 * point[0]}
        expected = 5 + 2 * (shares["a"] * 3 + shares["b"] * 2 * 7)
        assert mixer(losses).loss.item() == pytest.approx(expected, rel=1e-5)
        asked = {name: loss for name, loss in losses.items() if shares.get(name, 1) > 0}
        found = mixer(asked)
        assert found.loss.item() == pytest.approx(expected, rel=1e-5)
        assert found.gradients is not None
        assert list(found.gradients["norms"]) == [name for name in asked if name != "task"]
        mixer.advance()
    assert Mixer(Mixing(), {"a": 1.0, "b": 1.0}, ["a", "b"], [point]).preference() is None


def test_scales_are_of_the_batches_that_had_the_loss() -> None:
    point = nn.Parameter(torch.ones(1))
    mixer = Mixer(Mixing("preference", "loss"), {"a": 1.0, "b": 1.0}, ["a", "b"], [point])
    mixer.combiner.shares.fill_(0.5)  # type: ignore[union-attr, operator]
    mixer({"a": 4 * point[0]})
    found = mixer({"a": 2 * point[0], "b": 3 * point[0]}).loss.item()
    scale = (0.9 * 0.1 * 4 + 0.1 * 2) / (1 - 0.9**2)
    assert found == pytest.approx(2 / scale + 3 / 3)


def test_training_moves_the_shifts_alone_and_skips_what_nobody_asks_for(
    make: Make, tmp_path: Path
) -> None:
    asked: list[set[str]] = []
    drawn: list[dict[str, float]] = []
    real_draw, real_mix = Mixer.preference, Mixer.forward

    def preference(self: Mixer) -> dict[str, float] | None:
        shares = real_draw(self)
        assert shares is not None
        drawn.append(shares)
        return shares

    def forward(self: Mixer, losses: Mapping[str, torch.Tensor]) -> Combined:
        asked.append(set(losses))
        return real_mix(self, losses)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "validate", lambda self: Validation(None, {}))
        patch.setattr(Mixer, "preference", preference)
        patch.setattr(Mixer, "forward", forward)
        run = train(make(combine="preference", max_steps=6), output=tmp_path, name="run")
    assert asked == [{name for name, share in shares.items() if share} for shares in drawn]
    assert {1, 2} == {len(names) for names in asked}
    fresh = InterpretableAttention(run.module.sizes, run.config.levels, run.config.reading)
    for name, start in fresh.named_parameters():
        torch.testing.assert_close(
            run.module.get_parameter(f"parametrizations.{name}.original"), start, rtol=0, atol=0
        )
    for own in run.module.learnable:
        assert own.any()


def test_a_run_slides_along_its_trade_off_and_is_read_back(make: Make, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "validate", lambda self: Validation(None, {}))
        run = train(make(combine="preference"), output=tmp_path, name="run")
    read = load_run(run.path)
    assert read.module.preferences == ("comp", "suff")
    one, other = read.preferring({"comp": 1.0}), read.preferring({"suff": 1.0})
    assert not torch.equal(one.module.value, other.module.value)
    assert torch.equal(one.module.value, run.preferring({"comp": 2.0}).module.value)
    mean = (one.module.value + other.module.value) / 2
    torch.testing.assert_close(read.module.value, mean)
    plain = train(make(criteria="comp", combine="preference"), output=tmp_path, name="plain")
    assert plain.module.preferences == ()


def test_validation_judges_the_uniform_preference(make: Make, tmp_path: Path) -> None:
    seen = []
    real = CriteriaStage.validate

    def validate(self: CriteriaStage) -> Validation:
        found = real(self)
        seen.append(self.module.preference.shares.tolist())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "validate", validate)
        run = train(make(combine="preference", validations=3), output=tmp_path, name="run")
    assert seen == [[0.5, 0.5]] * 4
    assert run.module.preference.shares.tolist() == [0.5, 0.5]


def test_modules_are_averaged(make: Make, alone: dict[str, Run], tmp_path: Path) -> None:
    starts = ",".join(str(run.path) for run in alone.values())
    seen = []

    def validate(self: CriteriaStage) -> Validation:
        seen.append(copy.deepcopy(self.module))
        return Validation(None, {})

    same = {"model": str(alone["comp"].path / "model"), "finetune": "never"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CriteriaStage, "validate", validate)
        train(make(init_module=starts, **same), output=tmp_path, name="soup")
    for name, parameter in seen[0].named_parameters():
        pair = [dict(run.module.named_parameters())[name] for run in alone.values()]
        torch.testing.assert_close(parameter, (pair[0] + pair[1]) / 2)
        assert not torch.equal(pair[0], pair[1])


def test_a_slide_begins_at_the_runs_of_one_criterion(alone: dict[str, Run]) -> None:
    """Where one criterion alone is preferred it is that run, in between their interpolation."""
    sizes = alone["comp"].module.sizes
    levels = alone["comp"].config.levels
    module = InterpretableAttention(sizes, levels, preferences=("sim", "comp", "suff"))
    start_from(module, [run.path for run in alone.values()])
    names = [name for name, _ in alone["comp"].module.named_parameters()]
    values = {c: dict(run.module.named_parameters()) for c, run in alone.items()}
    for name in names:
        for criterion in ("comp", "suff"):
            module.prefer({criterion: 1.0})
            torch.testing.assert_close(getattr(module, name), values[criterion][name])
        module.prefer({"comp": 1.0, "suff": 3.0})
        between = 0.25 * values["comp"][name] + 0.75 * values["suff"][name]
        torch.testing.assert_close(getattr(module, name), between)
        delta = module.get_submodule(f"parametrizations.{name}.0")
        assert isinstance(delta, Shifted)
        assert bool((delta.delta[0] == 0).all())


def test_starts_that_do_not_fit_are_one_line_and_leave_nothing(
    make: Make, alone: dict[str, Run], tmp_path: Path
) -> None:
    def message(**values: object) -> str:
        with pytest.raises(IvraError) as caught:
            train(make(**values), output=tmp_path, name="run")
        assert list(tmp_path.iterdir()) == []
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = str(alone["comp"].path)
    assert message(init_module="runs/gone").startswith("no run at runs/gone")
    assert message(init_module=path, levels="head,layer") == (
        f"{path} has a module of levels feature, head, layer, value: expected head, layer as this "
        "run has"
    )
    assert message(init_module=path, combine="preference", criteria="sim,suff") == (
        f"{path} was trained for comp: expected runs of one criterion each, of sim, suff"
    )
    with pytest.raises(IvraError, match="combine is preference, which trains the attention module"):
        make_config({"combine": "preference", "train": "backbone"})
