"""Mishaps of a run, drawn by seed: which process meets what, and when. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from chaos.disk.file_faults import CHANGING, ERRORS, MANY, Call, Error
from chaos.network.proxy import Place

Side = Literal["server", "board"]
SIDES: Sequence[Side] = get_args(Side)

NAMED: Mapping[Side, Sequence[tuple[Call, str]]] = {
    "server": (
        ("write", "/uploads/"),  # an upload arrives
        ("fsync", "/uploads/"),  # it is to last
        ("rename", "/blobs/"),  # it gets its place, or a version does
        ("fsync", "/blobs"),
        ("pwrite", "-wal"),  # the row that makes it count
        ("fdatasync", "-wal"),
        ("unlink", "/blobs/"),  # what a closed round leaves behind
        ("rename", "/cuts/"),  # what boards download
    ),
    "board": (
        ("write", "work/"),  # a download arrives
        ("rename", "work/"),
        ("fsync", "work/"),
        ("unlink", "work/"),  # the task is over
        ("rename", "/held/"),  # its adapter is kept for the next one
        ("rename", "status.json"),
    ),
}
"""Calls at which a process is killed, by what a path has in it."""


@dataclass(frozen=True, slots=True)
class DiskTrouble:
    """Calls on a process's files fail for a while.

    Attributes:
        error: which they fail with.
        chance: of each call.
        times: how many fail.
        duration_s: after which the disk is well again.
        seed: of the draws.
    """

    side: Side
    error: Error
    chance: float
    times: int
    duration_s: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.error} under the {self.side}"


@dataclass(frozen=True, slots=True)
class KilledAtCall:
    """A process is killed at a call on a file: the `at`-th of these from now on, if its path has `path` in it."""

    side: Side
    is_named: bool
    calls: tuple[Call, ...]
    path: str
    at: int

    @property
    def name(self) -> str:
        return f"{self.side} killed at a {'named' if self.is_named else 'random'} call"


@dataclass(frozen=True, slots=True)
class KilledOnLine:
    """A process is killed when a call between the two has come to a place."""

    side: Side
    place: Place

    @property
    def name(self) -> str:
        return f"{self.side} killed {self.place}"


Mishap = DiskTrouble | KilledAtCall | KilledOnLine


def names_of(side: Side) -> tuple[str, ...]:
    """The names of all mishaps of a side."""
    killed = (f"killed at a {kind} call" for kind in ("named", "random"))
    on_line = (f"killed {place}" for place in get_args(Place))
    return (*(f"{error} under the {side}" for error in ERRORS), *(f"{side} {what}" for what in (*killed, *on_line)))


class Mishaps:
    """Deals mishaps to one side, every kind in turn, shuffled anew each time.

    Args:
        seed: equal seeds deal equal mishaps.
        side: who meets them.
    """

    def __init__(self, seed: str, side: Side) -> None:
        self._random, self._side = random.Random(seed), side
        self._kinds: list[str] = []
        self._again: list[Mishap] = []
        self._named: list[tuple[Call, str]] = []

    def next(self) -> Mishap:
        """The next mishap."""
        if not self._kinds and self._again:
            return self._again.pop(0)
        if not self._kinds:
            kinds = (*ERRORS, "named", "random", *get_args(Place))
            self._kinds = self._random.sample(kinds, len(kinds))
        kind = self._kinds.pop()
        if kind in get_args(Place):
            return KilledOnLine(self._side, kind)  # type: ignore[arg-type]  # just asked
        if kind == "random":
            return KilledAtCall(self._side, False, CHANGING, "", self._random.randint(1, 40))
        if kind == "named":
            if not self._named:
                self._named = self._random.sample(NAMED[self._side], len(NAMED[self._side]))
            call, path = self._named.pop()
            return KilledAtCall(self._side, True, (call,), path, self._random.randint(1, 3))
        is_whole = kind == "EROFS"  # a file system is read-only or it is not
        return DiskTrouble(
            self._side,
            kind,  # type: ignore[arg-type]  # all others are errors
            chance=1.0 if is_whole else self._random.choice((0.1, 0.5, 1.0)),
            times=MANY if is_whole else self._random.choice((1, 3, 20, MANY)),
            duration_s=self._random.uniform(0.2, 1.0),
            seed=self._random.getrandbits(32),
        )

    def put_back(self, mishap: Mishap) -> None:
        """Take back one that nobody has met, for a later turn."""
        self._again.append(mishap)

    def choice(self, names: Sequence[str]) -> str:
        """One of the names: who meets it."""
        return self._random.choice(names)

    def uniform(self, low: float, high: float) -> float:
        """A number, such as how long it is until the next mishap."""
        return self._random.uniform(low, high)
