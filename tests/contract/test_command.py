"""``ivra plugins --check NAME``: a line a clause, exit code 0 or 2; and the page about it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from ivra.cli.main import main
from ivra.contract import CLAUSES

torch.set_num_threads(1)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "criteria.md"
PLUGIN = """
from ivra import Criterion, Terms, View


class Wide(Criterion):
    name = "wide"

    def forward(self, view: View) -> Terms:
        return Terms(wide=view.saliency.square().mean(-1))
"""


def check(name: str) -> Result:
    return CliRunner().invoke(main, ["plugins", "--check", name])


def test_a_line_a_clause_and_0_where_all_hold() -> None:
    result = check("cons")
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line[16:32].strip() for line in lines] == list(CLAUSES)
    for line, (name, clause) in zip(lines, CLAUSES.items(), strict=True):
        if name in ("one by one", "removal"):
            assert line.startswith("not applicable  ")
        else:
            assert line == f"{'pass':16}{name:16}{clause.__doc__}"


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed plugin that divides by the width of the batch."""
    about = tmp_path / "ivra_wide-0.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ivra-wide\nVersion: 0.3\n")
    (about / "entry_points.txt").write_text("[ivra.criteria]\nwide = module_of_wide:Wide\n")
    (tmp_path / "module_of_wide.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    sys.modules.pop("module_of_wide", None)


@pytest.mark.usefixtures("wide")
def test_a_broken_plugin_gives_2_and_says_what_came() -> None:
    result = check("wide")
    assert result.exit_code == 2
    failed = [line for line in result.stdout.splitlines() if line.startswith("fail")]
    assert [line[16:32].strip() for line in failed] == ["one by one", "padding amount"]
    assert all("expected term 'wide' " in line for line in failed)
    assert result.stderr == (
        f"ivra: criterion 'wide' of ivra-wide 0.3 breaks 2 of {len(CLAUSES)} clauses: mend what "
        "the lines above say\n"
    )


def test_an_unknown_name_lists_the_choices() -> None:
    result = check("sufff")
    assert result.exit_code == 2
    assert "unknown criterion 'sufff'. Did you mean 'suff'?" in result.stderr
    assert result.stdout == ""


def test_the_page_has_every_clause_in_its_words() -> None:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    for name, clause in CLAUSES.items():
        assert f"| `{name}` | {clause.__doc__} |" in lines
