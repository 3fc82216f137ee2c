"""The division of examples into those that are trained on and those that are measured on.

An example's side depends on nothing but its text: the same on every board, in every run, after every restart. What
belongs together, such as the replies of one conversation, is a unit and stays on one side.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from braid_common.example import Example
from builtin_base import docstrings

HELD_OUT_SHARE = 0.1
"""Part kept apart to measure on, never trained on."""


class Units:
    """The unit of each example, and each unit's place between 0 and 1; the lowest are held out."""

    def __init__(self) -> None:
        self._unit_of_example = array("q")
        self._shares = array("d")

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, examples: Sequence[Example]) -> None:
        """Note one more unit. Its last example decides: of a conversation it holds all of it."""
        self._unit_of_example.extend([len(self._shares)] * len(examples))
        last = examples[-1]
        self._shares.append(docstrings.hash_share(f"{last.source}\0{last.target}"))

    def split(self, examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
        """(train, held out) of the examples that were noted; with two units or more, each side gets at least one."""
        held_out = {unit for unit, share in enumerate(self._shares) if share < HELD_OUT_SHARE}
        if not held_out and len(self) > 1:
            held_out = {min(range(len(self)), key=self._shares.__getitem__)}
        elif held_out and len(held_out) == len(self):
            held_out.remove(max(range(len(self)), key=self._shares.__getitem__))
        sides: tuple[list[Example], list[Example]] = ([], [])
        for example, unit in zip(examples, self._unit_of_example, strict=True):
            sides[unit in held_out].append(example)
        return sides
