"""ivra trains a transformer's attention until it gives good explanations."""

from ivra.version import __version__

__all__ = ["__version__"]
