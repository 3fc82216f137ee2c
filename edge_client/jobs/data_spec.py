"""A board's data as a person names it: where it is, and what of it is read."""

from __future__ import annotations

import msgspec


class DataSpec(msgspec.Struct, frozen=True):
    """A data set to read, with all that was said about it on the command line. It travels inside jobs.

    Attributes:
        path: a file, a folder, or "builtin:docstrings[/LIBRARY]".
        source: the column that is read, or a template of columns such as "{title}\\n{body}"; "" finds it by its name.
        target: the same for what is to be written.
        encoding: of text files, such as "utf-8" or "latin-1"; "" detects it.
        delimiter: between the columns of a table; "" detects it.
    """

    path: str
    source: str = ""
    target: str = ""
    encoding: str = ""
    delimiter: str = ""

    def __str__(self) -> str:
        return self.path
