"""A board's data as a person names it: where it is, and what of it is read."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

BUILTIN = "builtin:"
"""What the path of data begins with that lies in no file of the board's."""


class DataSpec(msgspec.Struct, frozen=True):
    """A data set to read, with all that was said about it on the command line. It travels inside jobs.

    Attributes:
        path: a file, a folder, or "builtin:docstrings[/LIBRARY]".
        source: the column that is read, or a template of columns such as "{title}\\n{body}"; "" finds it by its name.
        target: the same for what is to be written.
        encoding: of text files, such as "utf-8" or "latin-1"; "" detects it.
        delimiter: between the columns of a table; "" detects it.
        other_targets: columns or templates of further right answers.
    """

    path: str
    source: str = ""
    target: str = ""
    encoding: str = ""
    delimiter: str = ""
    other_targets: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, path: str, *, source: str = "", targets: Sequence[str] = (), encoding: str = "", delimiter: str = ""
    ) -> DataSpec:
        """A data set from flags, where any number of targets may have been named."""
        target, *others = targets or ("",)
        return cls(path, source, target, encoding, delimiter, tuple(others))

    @property
    def targets(self) -> tuple[str, ...]:
        """Every target that was named."""
        return (self.target, *self.other_targets) if self.target else ()

    def __str__(self) -> str:
        return self.path
