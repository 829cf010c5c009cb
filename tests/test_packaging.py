"""What setup.cfg promises: requirements that match the imports, and files that get shipped."""

import ast
import configparser
import importlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISTRIBUTION = {"sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Distributions that are not called like the module they bring."""


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def requirements(section: str, key: str) -> set[str]:
    lines = setup_cfg()[section][key].strip().splitlines()
    names = [re.match(r"[A-Za-z0-9._-]+", line.strip()) for line in lines if line[:1] != "#"]
    return {match.group().lower() for match in names if match}


def imports(files: Iterable[Path]) -> set[str]:
    """Distributions that ``files`` import, wherever in the file; not ours, not Python's."""
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    ours = {"ivra", "ivra_brevity", "ivra_lead", "conftest"}
    foreign = found - set(sys.stdlib_module_names) - ours
    return {DISTRIBUTION.get(name, name.replace("_", "-")) for name in foreign}


def test_a_plain_install_brings_what_the_package_imports_and_nothing_else() -> None:
    assert requirements("options", "install_requires") == imports((ROOT / "ivra").rglob("*.py"))


def test_the_test_extra_brings_what_the_tests_import() -> None:
    brought = requirements("options", "install_requires")
    brought |= requirements("options.extras_require", "test")
    tests = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]
    assert imports(tests) - brought == set()


def test_the_version_stands_in_one_place() -> None:
    from ivra.version import __version__

    assert setup_cfg()["metadata"]["version"] == "attr: ivra.version.__version__"
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_console_script_is_there() -> None:
    line = setup_cfg()["options.entry_points"]["console_scripts"].strip()
    name, _, target = (part.strip() for part in line.partition("="))
    module, _, function = target.partition(":")
    assert name == "ivra"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_file_of_the_package_is_shipped() -> None:
    config = setup_cfg()["options.package_data"]
    shipped = {
        path
        for package, pattern in config.items()
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    there = {p for p in (ROOT / "ivra").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {p for p in there if p.suffix != ".py"} == shipped
    assert [p for p in there if p.suffix == ".py" and not (p.parent / "__init__.py").exists()] == []
