"""Versions of the package and of its format on disk."""

__version__ = "0.1.0.dev0"
FORMAT_VERSION = 1
