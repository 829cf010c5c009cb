"""Explainers by name, their options, and those of other packages: every error in its words."""

import importlib
import itertools
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ivra import EvalConfig, plugins
from ivra.backbones import Backbone
from ivra.data import Batch, Item, Row, collate, encode_rows
from ivra.errors import IvraError
from ivra.evaluation import token_scores
from ivra.explainers import (
    LIME,
    STATIC,
    Explainer,
    HeadAttention,
    IntegratedGradients,
    check_explainers,
    explainer_options,
    known_explainers,
    static_explainer,
)
from ivra.version import __version__

Install = Callable[..., str]
Loud = Callable[[str], Backbone]

GOOD = """
from typing import Literal

from ivra import Explainer

class Place(Explainer):
    name = "place"
    summary = "where a token stands"

    def __init__(self, seed: int = 5, slope: float = 1.0, end: Literal["left", "right"] = "left"):
        self.seed, self.slope, self.end = seed, slope, end

    def explain(self, backbone, batch):
        return self.slope * batch.explainable.cumsum(-1) * batch.explainable
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one module and one entry point, as pip would leave it."""
    numbers = itertools.count()

    def put(source: str, entry: str = "place", target: str = ":Place", name: str = "mypkg") -> str:
        folder = tmp_path / str(next(numbers))
        module = f"module_of_{name}"
        about = folder / f"{name}-1.2.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[ivra.explainers]\n{entry} = {module}{target}\n")
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    yield put
    for module in [name for name in sys.modules if name.startswith("module_of_")]:
        del sys.modules[module]


def message(call: Callable[[], object]) -> str:
    with pytest.raises(IvraError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def items_of(backbone: Backbone) -> list[Item]:
    rows = [Row("one", ("not good .",)), Row("two", ("the music was bad",))]
    return encode_rows(rows, backbone.tokenizer, None, 64)


def test_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    known = known_explainers()
    assert list(known) == list(STATIC)
    assert {one.package for one in known.values()} == {f"ivra {__version__}"}
    assert all(one.explainer.summary for one in known.values())


def test_options_are_the_constructors() -> None:
    lime = static_explainer("lime:samples=100:seed=1:baseline=mask", seed=7, batch_tokens=99)
    assert isinstance(lime, LIME)
    assert (lime.samples, lime.seed, lime.baseline, lime.batch_tokens) == (100, 1, "mask", 99)
    assert lime.name == "lime:samples=100:seed=1:baseline=mask"
    assert LIME.name == "lime"
    head = static_explainer("attention-head:layer=-2:head=3")
    assert isinstance(head, HeadAttention)
    assert (head.layer, head.head) == (-2, 3)
    paths = static_explainer("integrated-gradients:steps=20:baseline=zero")
    assert isinstance(paths, IntegratedGradients)
    assert (paths.steps, paths.baseline) == (20, "zero")
    unsaid = static_explainer("lime", seed=7)
    assert isinstance(unsaid, LIME)
    assert (unsaid.seed, unsaid.samples) == (7, 500)


def test_the_options_that_there_are() -> None:
    found = {name: list(explainer_options(kind)) for name, kind in STATIC.items()}
    assert {name: options for name, options in found.items() if options} == {
        "attention-head": ["layer", "head", "queries"],
        "integrated-gradients": ["steps", "baseline"],
        "deeplift": ["baseline"],
        "layer-conductance": ["layer", "steps", "baseline"],
        "occlusion": ["baseline"],
        "lime": ["samples", "seed", "baseline"],
        "kernel-shap": ["samples", "seed", "baseline"],
        "random": ["seed"],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limes", "unknown explainer 'limes'. Did you mean 'lime'? Choose from: "),
        ("", "unknown explainer ''. Choose from: "),
        (
            "lime:sample=3",
            "unknown option of lime 'sample'. Did you mean 'samples'? "
            "Choose from: baseline, samples, seed.",
        ),
        (
            "lime:samples=few",
            "lime.samples is 'few': input should be a valid integer, unable to parse string as "
            "an integer (default: 500)",
        ),
        (
            "lime:samples=1",
            "lime.samples is '1': input should be greater than or equal to 2 (default: 500)",
        ),
        (
            "deeplift:baseline=blank",
            "unknown value of deeplift.baseline 'blank'. Choose from: mask, pad, zero.",
        ),
        (
            "occlusion:baseline=erase",
            "unknown value of occlusion.baseline 'erase'. Choose from: delete, mask, pad, zero.",
        ),
        ("attention:layer=1", "explainer 'attention' has no options, got 'layer': leave it out"),
        (
            "lime:batch_tokens=9",
            "unknown option of lime 'batch_tokens'. Choose from: baseline, samples, seed.",
        ),
        (
            "lime:100",
            "explainer 'lime:100' has '100' for an option: expected name=value, as in "
            "lime:samples=100:seed=1",
        ),
        (
            "lime:",
            "explainer 'lime:' has '' for an option: expected name=value, as in "
            "lime:samples=100:seed=1",
        ),
        (
            "lime:seed=1:seed=2",
            "option 'seed' stands twice in 'lime:seed=1:seed=2': set it once",
        ),
    ],
)
def test_names_and_options_that_cannot_be_meant(text: str, expected: str) -> None:
    for call in (
        lambda: static_explainer(text),
        lambda: EvalConfig(explainers=("attention", text)),
    ):
        found = message(call)
        assert found == expected or (expected.endswith(": ") and found.startswith(expected))


def test_an_explainer_named_twice_and_the_same_with_other_options() -> None:
    assert message(lambda: EvalConfig(explainers=("random", "lime", "random"))) == (
        "explainer 'random' stands twice: name each once"
    )
    check_explainers(["lime:seed=1", "lime:seed=2"])


def test_a_plugin_is_found_with_its_options(install: Install, loud: Loud) -> None:
    module = install(GOOD)
    found = known_explainers()["place"]
    assert found.explainer is sys.modules[module].Place
    assert found.package == "mypkg 1.2"
    assert list(explainer_options(found.explainer)) == ["seed", "slope", "end"]
    explainer = static_explainer("place:slope=0.5:end=right", seed=3)
    assert vars(explainer) == {
        "seed": 3,
        "slope": 0.5,
        "end": "right",
        "name": "place:slope=0.5:end=right",
    }
    backbone = loud("tiny-bert")
    items = items_of(backbone)
    for item, scores in zip(items, token_scores(explainer, backbone, items), strict=True):
        assert scores[torch.tensor(item.explainable)].tolist() == [
            0.5 * (place + 1) for place in range(sum(item.explainable))
        ]
    assert EvalConfig(explainers=("place:end=left",)).explainers == ("place:end=left",)


def test_a_plugin_may_be_a_frozen_dataclass(install: Install) -> None:
    head, constructor, tail = GOOD.partition("    def __init__")
    source = head.replace(
        "class Place", "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Place"
    )
    install(
        f"{source}    slope: float = 1.0\n\n    def explain{tail.partition('    def explain')[2]}"
    )
    assert constructor
    explainer = static_explainer("place:slope=0.5")
    assert (explainer.name, vars(explainer)["slope"]) == ("place:slope=0.5", 0.5)


@pytest.mark.parametrize("entry", ["lime", "attention-rollout", "ivra", "true"])
def test_a_plugin_that_claims_a_name_of_ours(install: Install, entry: str) -> None:
    install(GOOD.replace('"place"', f'"{entry}"'), entry)
    assert message(known_explainers) == (
        f"explainer '{entry}' is claimed by ivra {__version__} and by mypkg 1.2: "
        "rename or uninstall one of them"
    )


def test_two_plugins_that_claim_one_name(install: Install) -> None:
    install(GOOD, name="later")
    install(GOOD, name="earlier")
    assert message(known_explainers) == (
        "explainer 'place' is claimed by earlier 1.2 and by later 1.2: "
        "rename or uninstall one of them"
    )


def test_a_broken_plugin_does_not_stand_in_the_way_of_ours(install: Install) -> None:
    install("raise RuntimeError('no licence')")
    assert static_explainer("attention").name == "attention"
    assert message(lambda: static_explainer("plac")) == (
        "explainer 'place' of mypkg 1.2 cannot be imported (RuntimeError: no licence): "
        "mend or uninstall it"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("def explain", "def explained", "lacks explain: implement it in Place"),
        (
            'name = "place"',
            'name = "spot"',
            "has name 'spot': expected the class attribute 'name' to equal its entry point",
        ),
        (
            'name = "place"',
            "",
            "has name None: expected the class attribute 'name' to equal its entry point",
        ),
        ("(Explainer)", "", "is <class 'module_of_mypkg.Place'>: expected a subclass of"),
        (
            "seed: int = 5",
            "depth: int, seed: int = 5",
            "cannot be built without 'depth': give every parameter of Place's constructor a "
            "default",
        ),
    ],
)
def test_a_plugin_that_cannot_be_used(install: Install, old: str, new: str, expected: str) -> None:
    install(GOOD.replace(old, new))
    found = message(known_explainers)
    assert found.startswith(f"explainer 'place' of mypkg 1.2 {expected}")
    assert found.endswith((expected, "expected a subclass of ivra.Explainer"))


def test_a_plugin_may_not_be_called_none(install: Install) -> None:
    install(GOOD.replace('"place"', '"none"'), "none")
    assert message(known_explainers) == (
        "explainer 'none' of mypkg 1.2 has the name of having no explainer: rename it"
    )


def test_an_entry_point_that_nobody_owns(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("place", "nowhere_to_be_found:Place", "ivra.explainers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: (entry,))
    assert message(known_explainers).startswith("explainer 'place' of unknown package cannot be")


class Wrong(Explainer):
    """Returns what it was told to return."""

    name = "wrong"

    def __init__(self, make: Callable[[Batch], object]) -> None:
        self.make = make

    def explain(self, backbone: Backbone, batch: Batch) -> Tensor:
        return self.make(batch)  # type: ignore[return-value]


def put(value: float, row: int, token: int) -> Callable[[Batch], Tensor]:
    def make(batch: Batch) -> Tensor:
        scores = torch.zeros(batch.explainable.shape)
        scores[row, token] = value
        return scores

    return make


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda batch: None, "returned NoneType: expected a floating point tensor (2, 6)"),
        (
            lambda batch: batch.explainable.long(),
            "returned torch.int64: expected a floating point tensor (2, 6)",
        ),
        (
            lambda batch: torch.zeros(2, 5),
            "returned scores of shape (2, 5): expected one a token, (2, 6)",
        ),
        (
            lambda batch: torch.zeros(2, 6, 1),
            "returned scores of shape (2, 6, 1): expected one a token, (2, 6)",
        ),
        (
            put(float("nan"), 0, 2),
            "returned a score that is not finite (nan at token 2 of row two): expected finite "
            "numbers",
        ),
        (
            put(float("-inf"), 1, 1),
            "returned a score that is not finite (-inf at token 1 of row one): expected finite "
            "numbers",
        ),
        (
            put(0.5, 0, 0),
            "returned a score on a token that is not explainable (0.5 at token 0 of row two): "
            "expected 0 wherever batch.explainable is false",
        ),
        (
            put(-1.0, 1, 5),
            "returned a score on a token that is not explainable (-1.0 at token 5 of row one): "
            "expected 0 wherever batch.explainable is false",
        ),
    ],
)
def test_scores_that_are_no_scores(
    make: Callable[[Batch], object], expected: str, loud: Loud
) -> None:
    """The longer row comes first in a batch."""
    backbone = loud("tiny-bert")
    items = items_of(backbone)
    assert tuple(collate(items, 0).explainable.shape) == (2, 6)
    found = message(lambda: token_scores(Wrong(make), backbone, items))
    assert found == f"explainer 'wrong' {expected}"
