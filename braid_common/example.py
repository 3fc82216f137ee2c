"""A training example. It lives apart from the readers, so that a board and the base's training script share it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One pair of texts to learn from.

    Attributes:
        id: name that is unique within its data set, e.g. ``json.decoder:JSONDecoder.decode``.
        group: what the example belongs to (a library, an author, a patient); boards are told apart by it.
        source: the text to read, without the words that a run puts before it.
        target: the text to write.
        other_targets: further texts that would be as right, such as a second person's summary.
    """

    id: str
    group: str
    source: str
    target: str
    other_targets: tuple[str, ...] = ()

    @property
    def targets(self) -> tuple[str, ...]:
        """Every right answer, one at least."""
        return (self.target, *self.other_targets)
