"""Errors for bad input files and impossible requests; a bad argument is a plain ValueError or TypeError."""

__all__ = [
    "ConfigError",
    "FormatError",
    "LayoutError",
    "MissingToolError",
    "ModelError",
    "SparseFabError",
    "StorageError",
    "TargetError",
    "VerificationError",
]


class SparseFabError(Exception):
    """Base of all errors that a user can cause and mend; the message names the thing and the remedy."""


class ConfigError(SparseFabError):
    """A TOML file that cannot be used: unknown key, wrong type, missing value."""


class FormatError(SparseFabError):
    """An unknown or impossible number format."""


class LayoutError(SparseFabError):
    """A tensor that does not fit a layout, or packed bytes that do not match their header."""


class ModelError(SparseFabError):
    """A model file that cannot be read, or holds something that cannot be represented."""


class MissingToolError(SparseFabError):
    """An external tool (simulator, compiler, package) that is needed and absent."""


class StorageError(SparseFabError):
    """A file that cannot be written or read back: full disk, permissions, damaged cache."""


class TargetError(SparseFabError):
    """An unknown device, or an architecture that does not fit it."""


class VerificationError(SparseFabError):
    """Two readers of one packed tensor disagree."""
