"""Versions of packages, for manifests and reports."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed"]


def installed(name: str) -> str:
    """Return a package's version, or that it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
