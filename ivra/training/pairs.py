"""Numbers by name on the command line: ``suff=0.05,comp=1``."""

from ivra.errors import IvraError


def numbers_of(text: object) -> object:
    """``"suff=0.05,comp=1"`` as a mapping, its values still text; what is no text as it is.

    Raises:
        IvraError: a part without a name or value, or a name twice.
    """
    if not isinstance(text, str):
        return text
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and name and value):
            raise IvraError(f"'{part}': expected criterion=number, as in suff=0.05")
        if name in found:
            raise IvraError(f"'{name}' stands twice in '{text}': name each once")
        found[name] = value
    return found
