"""Rows of a data set on the Hugging Face hub, through the ``datasets`` library."""

from collections.abc import Iterator

from ivra.errors import IvraError

RESERVED = ("id", "rationale")
"""Columns of hub data sets that are not ours to interpret: ids may repeat, rationales be prose."""


def hub_records(source: str, split: str | None) -> Iterator[tuple[str, dict[str, object]]]:
    """``(where, record)`` of every row of ``source``, "name" or "name:config".

    ``split`` "dev" means "validation". ``ClassLabel`` integers become their names, and -1
    (GLUE's "hidden") becomes no label. ``where`` is "name[split]:row", counted from 1.
    Raises :class:`IvraError` in one line whatever way the library or the network fails.
    """
    if split is None:
        raise IvraError(f"which split of '{source}'? Name one, as in train, dev or test.")
    name, _, config = source.partition(":")
    part = "validation" if split == "dev" else split
    try:
        import datasets

        loaded = datasets.load_dataset(name, config or None, split=part)
    except ImportError:
        raise IvraError(
            f"'{source}' is no file or folder here, and reading data sets of the Hugging Face "
            f"hub needs the package 'datasets'; install it with: pip install datasets"
        ) from None
    except Exception as error:  # noqa: BLE001 - the library raises some twenty unrelated types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise IvraError(
            f"'{source}' is no file or folder here, and its split '{part}' could not be loaded "
            f"from the Hugging Face hub: {reason[:200]}"
        ) from None
    names = {
        column: feature.names
        for column, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    for number, record in enumerate(loaded, start=1):
        yield f"{source}[{part}]:{number}", _named(record, names)


def _named(record: dict[str, object], names: dict[str, list[str]]) -> dict[str, object]:
    named = {column: value for column, value in record.items() if column not in RESERVED}
    for column, choices in names.items():
        value = named.get(column)
        if isinstance(value, int):
            named[column] = choices[value] if value >= 0 else None
    return named
