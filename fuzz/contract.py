"""The contract of fuzz targets: how one is opened, how it judges an input, and how inputs are changed by their form."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _nothing() -> None:
    """The rest between inputs of a target that remembers none."""


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge of inputs. Whatever it raises is a find.

    Attributes:
        check: judges one: a word for what became of it, such as "refused".
        rest: work between two inputs, which is not counted as theirs.
    """

    check: Callable[[bytes], str]
    rest: Callable[[], None] = _nothing


Mutate = Callable[[bytes, random.Random], bytes]
"""A changed copy of an input that keeps its form."""


class BrokenError(Exception):
    """A promise that an input has broken.

    Attributes:
        kind: in a word, such as "500".
        where: the place in the code, where it is known: finds of one kind and place are one find.
    """

    def __init__(self, kind: str, message: str, where: str = "") -> None:
        super().__init__(message)
        self.kind, self.where = kind, where


@dataclass(frozen=True, slots=True)
class Target:
    """One reader under test.

    Attributes:
        name: as in `fuzz.targets.SHARES`; its corpus lies in the folder of this name.
        about: what is read, by whom, in a few words.
        max_bytes: longest input that is tried. Longer ones find little, and slow down all others.
        open: makes a judge, in an empty folder for whatever it writes.
        mutate: changes inputs by their form.
    """

    name: str
    about: str
    max_bytes: int
    open: Callable[[Path], AbstractContextManager[Judge]]
    mutate: Mutate


def require(condition: Any, promise: str) -> None:
    """Raise BrokenError unless a promise holds."""
    if not condition:
        raise BrokenError("broken promise", promise, promise)
