"""The house: imports run one way, files and functions stay short, exports are told of."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from ivra.losses import sufficiency_loss

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ivra"
FILES = sorted(PACKAGE.rglob("*.py"))
INITS = [path for path in FILES if path.name == "__init__.py"]

LAYERS = (
    {"errors", "shapes", "version", "storage", "plugins"},
    {"data"},
    {"attention", "tasks"},
    {"backbones", "losses"},
    {"explainers"},
    {"training"},
    {"evaluation"},
    {"reports"},
    {"contract", "studies"},
    {"api"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up: a part may import itself and what stands in the lines above it here."""
ONLY = {"reports": {"errors", "storage"}}
"""Parts that may import less than their place allows."""

MAX_FILE, MAX_FUNCTION = 400, 60
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def part_of(path: Path) -> str:
    """``data`` for ``ivra/data/batch.py``, ``api`` for ``ivra/api.py``."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def level(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def imported(path: Path) -> list[tuple[int, str, list[str]]]:
    """Line, module and names of every absolute import, inside functions too."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append((node.lineno, node.module or "", [alias.name for alias in node.names]))
    return found


def may_import(part: str, other: str) -> bool:
    if part == other:
        return True
    if part in ONLY:
        return other in ONLY[part]
    foundation = part in LAYERS[0] and other in LAYERS[0]
    return foundation or level(other) < level(part)


def test_every_part_has_its_place() -> None:
    parts = {part_of(path) for path in FILES} - {"__init__"}
    assert parts - set().union(*LAYERS) == set()


@each_file
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    wrong = []
    for line, module, names in imported(path):
        package, _, rest = module.partition(".")
        if package != "ivra":
            continue
        if not rest:
            wrong.append(f"line {line}: from ivra import {', '.join(names)}")
        elif not may_import(part, rest.partition(".")[0]):
            wrong.append(f"line {line}: {part} imports {module}")
    assert wrong == []


@each_file
def test_private_names_stay_in_their_file(path: Path) -> None:
    taken = [
        f"line {line}: {module}.{name}"
        for line, module, names in imported(path)
        for name in names
        if module.startswith("ivra") and name.startswith("_") and name != "__version__"
    ]
    assert taken == []


@each_file
def test_nothing_is_unpickled(path: Path) -> None:
    assert not UNPICKLERS & {module.partition(".")[0] for _, module, _ in imported(path)}
    calls = [node.func for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert "torch.load" not in {ast.unparse(call) for call in calls}


@each_file
def test_files_and_functions_are_short(path: Path) -> None:
    """The docstring of a function is not counted: a contract may take the room it needs."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE
    long = {}
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
            if lines > MAX_FUNCTION:
                long[node.name] = lines
    assert long == {}


@each_file
def test_protocols_can_be_checked_when_called(path: Path) -> None:
    bare = [
        node.name
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
        and "Protocol" in map(ast.unparse, node.bases)
        and "runtime_checkable" not in map(ast.unparse, node.decorator_list)
    ]
    assert bare == []


def test_shapes_are_checked_at_every_call() -> None:
    sufficiency_loss(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(TypeCheckError):
        sufficiency_loss(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(TypeCheckError):
        sufficiency_loss(torch.zeros(2, 3), torch.zeros(2, 3), margin="0.1")  # type: ignore[arg-type]


@each_file
def test_public_functions_and_classes_have_a_docstring(path: Path) -> None:
    bare = [
        node.name
        for node in tree(path).body
        if isinstance(node, Function | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert ast.get_docstring(tree(path)) is not None
    assert bare == []


def top_level(path: Path) -> list[ast.stmt]:
    """The statements of a module, with those that only a type checker reads."""
    found = []
    for node in tree(path).body:
        checked = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        found += node.body if isinstance(node, ast.If) and checked else [node]
    return found


@pytest.mark.parametrize("path", INITS, ids=lambda p: str(p.parent.relative_to(ROOT)))
def test_all_is_what_the_package_reexports(path: Path) -> None:
    public = []
    listed = []
    for node in top_level(path):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ivra"):
            public += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            public.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name == "__all__":
                listed = ast.literal_eval(node.value)
            elif not name.startswith("_"):
                public.append(name)
    assert sorted(public) == sorted(listed)
    package = import_module(".".join(path.parent.relative_to(ROOT).parts))
    assert [name for name in listed if not hasattr(package, name)] == []
