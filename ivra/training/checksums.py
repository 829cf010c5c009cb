"""SHA-256 of a run's weights, in the format of ``sha256sum``: a flipped bit is noticed."""

import hashlib
from pathlib import Path

from ivra.errors import IvraError
from ivra.storage import current, write_text_atomic

SUMS = "SHA256SUMS"


def write_checksums(staged: Path, folder: Path) -> None:
    """Name every safetensors file under ``staged``, and those that ``folder`` keeps besides."""
    kept = _read(folder) if current(folder, SUMS).is_file() else {}
    sums = {str(p.relative_to(staged)): _sha256(p) for p in sorted(staged.rglob("*.safetensors"))}
    replaced = {name.partition("/")[0] for name in sums}
    sums |= {name: sha for name, sha in kept.items() if name.partition("/")[0] not in replaced}
    write_text_atomic(staged / SUMS, "".join(f"{sha}  {name}\n" for name, sha in sums.items()))


def check_weights(folder: Path) -> None:
    """Compare the weights with their checksums; a folder without checksums passes.

    Raises:
        IvraError: a file named there is missing, or is not as it was saved.
    """
    if not current(folder, SUMS).is_file():
        return
    for name, sha in _read(folder).items():
        part, _, rest = name.partition("/")
        path = current(folder, part) / rest if rest else current(folder, part)
        if not path.is_file() or _sha256(path) != sha:
            raise IvraError(
                f"{path} is not the file that was saved (its SHA-256 differs): copy or train the "
                f"run again, or remove {SUMS} if you changed the file yourself"
            )


def _read(folder: Path) -> dict[str, str]:
    path = current(folder, SUMS)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [line.split("  ", 1) for line in lines if line.strip()]
    if not all(len(pair) == 2 and ".." not in Path(pair[1]).parts for pair in pairs):
        raise IvraError(f"{path} is damaged: expected lines of a SHA-256, two spaces and a file")
    return {name: sha for sha, name in pairs}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
