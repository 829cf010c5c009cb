"""Options: read off a constructor, converted, refused in one line, and handed to the criterion."""

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
from pydantic import Field

from ivra.errors import IvraError
from ivra.losses import (
    Comprehensiveness,
    Consistency,
    Criterion,
    Plausibility,
    Setup,
    Sufficiency,
    Terms,
    View,
    check_options,
    known_criteria,
    registry,
)
from ivra.losses.options import checked_values
from ivra.losses.registry import Known


class Tuned(Criterion):
    """A plugin with an option of every kind."""

    name = "tuned"

    def __init__(
        self,
        rate: float = 0.5,
        count: int = 3,
        deep: bool = False,
        word: str = "a",
        form: Literal["one", "two"] = "one",
        level: Literal[1, 2] = 1,
        share: Annotated[float, Field(gt=0, lt=1)] = 0.1,
        limit: int | None = None,
        parts: tuple[float, ...] = (1.0,),
        untyped=4,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.given = (rate, count, deep, word, form, level, share, limit, seed)

    def forward(self, view: View) -> Terms:
        raise NotImplementedError


class Plain(Criterion):
    name = "plain"

    def forward(self, view: View) -> Terms:
        raise NotImplementedError


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {c.name: Known(c.name, c, "here 1") for c in (Tuned, Plain, Comprehensiveness)}
    monkeypatch.setattr(registry, "known_criteria", lambda: known)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(IvraError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def setup(**options: object) -> Setup:
    def none() -> None:
        raise AssertionError("no student is asked for")

    return Setup(7, (20.0,), "sigmoid", none, "sparsemax", options)


def test_options_are_the_scalar_parameters_that_the_run_does_not_fill() -> None:
    found = Tuned.options()
    names = ["rate", "count", "deep", "word", "form", "level", "share", "limit"]
    assert list(found) == names
    assert found["form"].choices == ("one", "two")
    assert found["form"].values == "one, two"
    assert found["rate"].values == "0.5"
    assert Plain.options() == {}


def test_ours() -> None:
    removal = ["form", "margin", "bins_mode", "temperature", "samples"]
    assert list(Comprehensiveness.options()) == list(Sufficiency.options()) == removal
    assert list(Consistency.options()) == ["form", "divergence", "distance", "scope"]
    assert list(Plausibility.options()) == ["form"]
    for known in known_criteria().values():
        for option in known.criterion.options().values():
            assert checked_values(known.name, {option.name: option}, {option.name: option.default})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ({"rate": "2"}, 2.0),
        ({"rate": 1}, 1.0),
        ({"count": "5"}, 5),
        ({"deep": "true"}, True),
        ({"deep": "no"}, False),
        ({"word": "b"}, "b"),
        ({"form": "two"}, "two"),
        ({"level": "2"}, 2),
        ({"share": "0.25"}, 0.25),
        ({"limit": "8"}, 8),
        ({"limit": None}, None),
    ],
)
@pytest.mark.usefixtures("plugins")
def test_text_becomes_what_the_constructor_asks_for(text: dict, value: object) -> None:
    ((name, found),) = check_options("tuned", {"tuned": text})["tuned"].items()
    assert found == value
    assert type(found) is type(value)
    built = Tuned.build(setup(**{name: found}))
    assert value in built.given
    assert built.given[-1] == 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"turned": {"rate": 1}},
            "unknown criterion with options (not in criteria) 'turned'. Did you mean 'tuned'? "
            "Choose from: plain, tuned.",
        ),
        (
            {"comp": {"form": "kl"}},
            "unknown criterion with options (not in criteria) 'comp'. Choose from: plain, tuned.",
        ),
        (
            {"tuned": {"rat": 1}},
            "unknown option of tuned 'rat'. Did you mean 'rate'? "
            "Choose from: count, deep, form, level, limit, rate, share, word.",
        ),
        (
            {"tuned": {"seed": 1}},
            "unknown option of tuned 'seed'. "
            "Choose from: count, deep, form, level, limit, rate, share, word.",
        ),
        ({"plain": {"rate": 1}}, "criterion 'plain' has no options, got 'rate': leave it out"),
        (
            {"tuned": {"form": "too"}},
            "unknown value of tuned.form 'too'. Did you mean 'two'? Choose from: one, two.",
        ),
        ({"tuned": {"level": 3}}, "unknown value of tuned.level '3'. Choose from: 1, 2."),
        (
            {"tuned": {"rate": "fast"}},
            "tuned.rate is 'fast': input should be a valid number, unable to parse string as a "
            "number (default: 0.5)",
        ),
        (
            {"tuned": {"share": 1}},
            "tuned.share is 1: input should be less than 1 (default: 0.1)",
        ),
        (
            {"tuned": {"rate": "nan"}},
            "tuned.rate is 'nan': expected a finite number (default: 0.5)",
        ),
        (
            {"tuned": {"count": 1.5}},
            "tuned.count is 1.5: input should be a valid integer, got a number with a fractional "
            "part (default: 3)",
        ),
    ],
)
@pytest.mark.usefixtures("plugins")
def test_what_does_not_fit_is_one_line(options: dict, expected: str) -> None:
    assert message(lambda: check_options("tuned,plain", options)) == expected


def test_the_run_fills_what_is_called_like_its_own() -> None:
    comp = Comprehensiveness.build(setup(form="kl", margin=0.5))
    assert (comp.form, comp.margin, comp.bins) == ("kl", 0.5, (20.0,))
    cons = Consistency.build(setup(divergence="fenchel-young"))
    assert (cons.divergence, cons.normaliser) == ("fenchel-young", "sparsemax")
    assert isinstance(Plain.build(setup()), Plain)


def test_annotations_that_cannot_be_read_give_no_options() -> None:
    class Shy(Plain):
        def __init__(self, rate: "Unknown" = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
            super().__init__()

    assert Shy.options() == {}
