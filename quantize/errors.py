"""The one error that loading a base raises."""

from __future__ import annotations


class BaseFormatError(Exception):
    """A base folder, file or format that cannot be used. The sentence names the file and tensor, and what to do."""
