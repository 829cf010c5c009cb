"""Configurations on disk: YAML files of ``key: value`` lines."""

from pathlib import Path

import yaml

from ivra.errors import IvraError


def read_config(path: str | Path) -> dict[str, object]:
    """The keys of a YAML file, unchecked.

    Raises:
        IvraError: no such file, not YAML, or not a mapping; with the line where it is known.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IvraError(f"cannot read {path}: {error}: expected a YAML file") from error
    try:
        values = yaml.safe_load(text)
        twice = _twice(yaml.compose(text, yaml.SafeLoader))
    except RecursionError as error:
        raise IvraError(f"{path}: nested too deep: expected 'key: value' lines") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise IvraError(f"{path}{line}: {problem}: expected 'key: value' lines") from error
    if not isinstance(values, dict):
        raise IvraError(f"{path}: expected 'key: value' lines, got {type(values).__name__}")
    if twice is not None:
        raise IvraError(f"{path}:{twice[1]}: the key '{twice[0]}' stands twice: leave one of them")
    return values


def _twice(root: yaml.Node | None) -> tuple[str, int] | None:
    """The first key of a mapping that stood before, and its line."""
    seen: set[str] = set()
    for key, _ in root.value if isinstance(root, yaml.MappingNode) else ():
        if str(key.value) in seen:
            return str(key.value), key.start_mark.line + 1
        seen.add(str(key.value))
    return None
