"""A training example, and the words put in front of its source.

Both live apart from the readers (JSONL, CSV, docstrings) so that the base's training script and a board agree on
the text a model sees without importing each other's machinery.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX = "summarize: "
"""Put before every source text. FLAN-T5 and the builtin base both know it from training, so a fresh adapter starts from
"write the summary", not from "guess what is wanted"."""


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of texts to learn from.

    Attributes:
        id: name that is unique within its data set, e.g. ``json.decoder:JSONDecoder.decode``.
        group: what the example belongs to (a library, an author, a patient); boards are told apart by it.
        source: the text to read, without `PREFIX`.
        target: the text to write.
    """

    id: str
    group: str
    source: str
    target: str
