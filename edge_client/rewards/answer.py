"""An answer that is to be judged, with all that a reward may look at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """One answer that the model wrote.

    Attributes:
        source: the text that it answers.
        targets: the right answers.
        writable_targets: the same as the base's tokenizer can write them, which may lack characters.
        text: the answer.
    """

    source: str
    targets: tuple[str, ...]
    writable_targets: tuple[str, ...]
    text: str
