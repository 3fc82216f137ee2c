"""A board's examples, and what was found out about the files that they come from."""

from __future__ import annotations

from dataclasses import dataclass, field

from braid_common.example import Example


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file that was read; a folder of texts counts as one.

    Attributes:
        path: file or folder.
        format: "jsonl", "json", "csv", "parquet", "text" or "docstrings".
        compression: "gzip", "zstd" or "".
        encoding: Python's name, with "(guessed)" where it was; "" where there is no text.
        delimiter: between columns, as it can be given; "" where there are none.
        n_examples, n_skipped: what came of it.
        n_files: more than one for texts.
    """

    path: str
    format: str
    compression: str = ""
    encoding: str = ""
    delimiter: str = ""
    n_examples: int = 0
    n_skipped: int = 0
    n_files: int = 1


@dataclass(frozen=True, slots=True)
class Findings:
    """The way in which the data was read, as far as a person should know it.

    Attributes:
        files: in the order of reading.
        shapes: names of the shapes of records that were met.
        source_columns, target_columns: that examples are made of.
        ignored_columns: that were met and not used.
        skips: (place, reason) of the first parts that cannot be used.
        left_out_files: in the folder, not read.
        left_out_from: the place from which on data is left out, since there is more than a board keeps; or "".
    """

    files: tuple[FileFacts, ...] = ()
    shapes: tuple[str, ...] = ()
    source_columns: tuple[str, ...] = ()
    target_columns: tuple[str, ...] = ()
    ignored_columns: tuple[str, ...] = ()
    skips: tuple[tuple[str, str], ...] = ()
    left_out_files: tuple[str, ...] = ()
    left_out_from: str = ""


@dataclass(frozen=True, slots=True)
class Data:
    """Examples of one board.

    Attributes:
        train, held_out: divided by a hash of the text, so that every run and restart divides alike.
        n_skipped: lines or files that could not be used.
        first_skipped: sentence about the first of them with file and line, "" where there is none.
        findings: how the files were read.
        first: the first examples, in the order of the files.
        n_units: examples that are divided one by one, and conversations, whose examples stay together.
    """

    train: list[Example]
    held_out: list[Example]
    n_skipped: int = 0
    first_skipped: str = ""
    findings: Findings = field(default_factory=Findings)
    first: tuple[Example, ...] = ()
    n_units: int = 0

    @property
    def n_examples(self) -> int:
        """Examples on both sides."""
        return len(self.train) + len(self.held_out)
