"""Plugins, the names of criteria, and what a criterion must return: every error in its words."""

import importlib
import itertools
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from ivra import plugins
from ivra.errors import IvraError
from ivra.losses import Criterion, Terms, View, Weighted, check_terms, known_criteria, registry
from ivra.losses.registry import parse_criteria
from ivra.version import __version__

Install = Callable[..., str]

GOOD = """
from ivra.losses import Criterion, Terms, View

class Short(Criterion):
    name = "short"

    def forward(self, view: View) -> Terms:
        return Terms(short=view.saliency.sum(-1))
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution with one module and one entry point, as pip would leave it."""
    numbers = itertools.count()

    def put(source: str, entry: str = "short", target: str = ":Short", name: str = "mypkg") -> str:
        folder = tmp_path / str(next(numbers))
        module = f"module_of_{name}"
        about = folder / f"{name}-1.2.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[ivra.criteria]\n{entry} = {module}{target}\n")
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, module, raising=False)
        return module

    yield put
    for module in [name for name in sys.modules if name.startswith("module_of_")]:
        del sys.modules[module]


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())


def message(call: Callable[[], object]) -> str:
    with pytest.raises(IvraError) as caught:
        call()
    return str(caught.value)


@pytest.mark.usefixtures("no_plugins")
def test_ours() -> None:
    known = known_criteria()
    assert list(known) == ["sim", "comp", "suff", "cons", "plaus"]
    assert all(name == one.name == one.criterion.name for name, one in known.items())
    assert {one.package for one in known.values()} == {f"ivra {__version__}"}


def test_a_plugin_is_found_and_can_be_weighted(install: Install) -> None:
    module = install(GOOD)
    found = known_criteria()["short"]
    assert found.criterion is sys.modules[module].Short
    assert found.package == "mypkg 1.2"
    assert parse_criteria("suff,short:0.3") == [Weighted("suff", 1.0), Weighted("short", 0.3)]


@pytest.mark.parametrize("entry", ["sim", "comp", "suff", "cons", "plaus"])
def test_a_plugin_that_claims_a_name_of_ours(install: Install, entry: str) -> None:
    install(GOOD.replace('"short"', f'"{entry}"'), entry)
    assert message(known_criteria) == (
        f"criterion '{entry}' is claimed by ivra {__version__} and by mypkg 1.2: "
        "rename or uninstall one of them"
    )


def test_two_plugins_that_claim_one_name(install: Install) -> None:
    install(GOOD, name="later")
    install(GOOD, name="earlier")
    assert message(known_criteria) == (
        "criterion 'short' is claimed by earlier 1.2 and by later 1.2: "
        "rename or uninstall one of them"
    )


def test_a_plugin_without_forward(install: Install) -> None:
    install(GOOD.replace("def forward", "def backward"))
    assert message(known_criteria) == (
        "criterion 'short' of mypkg 1.2 lacks forward: implement it in Short"
    )


@pytest.mark.parametrize(
    ("line", "name"), [("", None), ("name = 'brief'", "brief"), ("name = 3", 3)]
)
def test_a_plugin_with_another_name_or_none(install: Install, line: str, name: object) -> None:
    install(GOOD.replace('name = "short"', line))
    assert message(known_criteria) == (
        f"criterion 'short' of mypkg 1.2 has name {name!r}: expected the class attribute 'name' "
        "to equal its entry point"
    )


def test_a_plugin_with_another_better(install: Install) -> None:
    install(GOOD.replace('name = "short"', 'name = "short"\n    better = "shorter"'))
    assert message(known_criteria) == (
        "criterion 'short' of mypkg 1.2 has better 'shorter': expected 'higher' or 'lower'"
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("class Short: pass", "<class 'module_of_mypkg.Short'>"),
        ("Short = 'short'", "'short'"),
        (GOOD + "\nShort = Short()", "Short()"),
    ],
)
def test_a_plugin_that_is_no_criterion(install: Install, source: str, found: str) -> None:
    install(source)
    assert message(known_criteria) == (
        f"criterion 'short' of mypkg 1.2 is {found}: expected a subclass of ivra.Criterion"
    )


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "import nowhere_to_be_found",
            "ModuleNotFoundError: No module named 'nowhere_to_be_found'",
        ),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("", "AttributeError: module 'module_of_mypkg' has no attribute 'Short'"),
        ("def :", "SyntaxError: invalid syntax (module_of_mypkg.py, line 1)"),
    ],
)
def test_a_plugin_that_cannot_be_imported(install: Install, source: str, problem: str) -> None:
    install(source)
    assert message(known_criteria) == (
        f"criterion 'short' of mypkg 1.2 cannot be imported ({problem}): mend or uninstall it"
    )


def test_an_entry_point_that_nobody_owns(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("short", "nowhere_to_be_found:Short", registry.SLOT.group)
    monkeypatch.setattr(plugins, "entry_points", lambda group: (entry,))
    assert message(known_criteria).startswith("criterion 'short' of unknown package cannot be")


@pytest.mark.parametrize(
    ("text", "weighted"),
    [
        ("sim", [("sim", 1.0)]),
        ("sim,suff:0.5", [("sim", 1.0), ("suff", 0.5)]),
        (" comp:2 , cons:1e-3,", [("comp", 2.0), ("cons", 1e-3)]),
        ("comp : 2", [("comp", 2.0)]),
    ],
)
@pytest.mark.usefixtures("no_plugins")
def test_names_and_weights(text: str, weighted: list[tuple[str, float]]) -> None:
    assert parse_criteria(text) == weighted


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "sim,suf",
            "unknown criterion 'suf'. Did you mean 'suff'? "
            "Choose from: comp, cons, plaus, sim, suff.",
        ),
        ("brevity:2", "unknown criterion 'brevity'. Choose from: comp, cons, plaus, sim, suff."),
        (":2", "unknown criterion ''. Choose from: comp, cons, plaus, sim, suff."),
        ("suff,sim,suff:2", "criterion 'suff' stands twice in 'suff,sim,suff:2': name each once"),
        ("", "no criterion named: expected some of comp, cons, plaus, sim, suff"),
        (" , ", "no criterion named: expected some of comp, cons, plaus, sim, suff"),
    ],
)
@pytest.mark.usefixtures("no_plugins")
def test_names_that_cannot_be_meant(text: str, expected: str) -> None:
    assert message(lambda: parse_criteria(text)) == expected


@pytest.mark.parametrize("weight", ["", "0", "-1", "nan", "inf", "much", "1:2"])
@pytest.mark.usefixtures("no_plugins")
def test_weights_that_cannot_be_meant(weight: str) -> None:
    assert message(lambda: parse_criteria(f"suff:{weight}")) == (
        f"criterion 'suff' has weight '{weight}': expected a positive number, as in suff:0.5"
    )


class Probe(Criterion):
    name = "probe"

    def forward(self, view: View) -> Terms:
        raise NotImplementedError


def test_good_terms_come_back_as_they_are() -> None:
    terms = Terms(a=torch.tensor([1.0, 2.0]), b=torch.tensor([0.5, -3.0]))
    assert check_terms(Probe(), terms, rows=2) is terms
    assert terms.total().tolist() == [1.5, -1.0]


@pytest.mark.parametrize(
    ("terms", "kind"),
    [(torch.zeros(2), "Tensor"), ({"a": torch.zeros(2)}, "dict"), (None, "NoneType")],
)
def test_what_is_not_terms(terms: object, kind: str) -> None:
    assert message(lambda: check_terms(Probe(), terms, rows=2)) == (
        f"criterion 'probe' returned {kind}: expected a non-empty Terms"
    )


def test_empty_terms() -> None:
    assert message(lambda: check_terms(Probe(), Terms(), rows=2)) == (
        "criterion 'probe' returned Terms: expected a non-empty Terms"
    )


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (torch.tensor(1.0), "()"),
        (torch.zeros(3), "(3,)"),
        (torch.zeros(2, 1), "(2, 1)"),
        (1.0, "float"),
    ],
)
def test_terms_of_a_wrong_shape(value: torch.Tensor, shape: str) -> None:
    terms = Terms(good=torch.zeros(2), bad=value)
    assert message(lambda: check_terms(Probe(), terms, rows=2)) == (
        f"criterion 'probe' returned term 'bad' of shape {shape}: expected one loss a row, (2,)"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_terms_that_are_not_finite(value: str) -> None:
    terms = Terms(good=torch.zeros(3), bad=torch.tensor([0.0, float(value), float("nan")]))
    assert message(lambda: check_terms(Probe(), terms, rows=3)) == (
        f"criterion 'probe' returned a term 'bad' that is not finite, {value} in row 1"
    )


def test_every_message_is_one_line(install: Install) -> None:
    install("raise RuntimeError('two\\nlines')")
    assert not re.search("\n", message(known_criteria))
