"""Versions of everything a number can depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from ivra.version import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "bitsandbytes",
    "numpy",
    "scikit-learn",
    "captum",
    "datasets",
)


def versions() -> dict[str, str]:
    """ivra's own, Python's and the main packages' versions, and the machine."""
    found = {"ivra": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    found["machine"] = f"{platform.system()} {platform.machine()}"
    return found
