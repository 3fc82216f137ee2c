"""The faults of a line, and which request meets which: drawn by seed, every kind in turn. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from chaos.network.http import Request

LineFault = Literal[
    "refused",
    "reset before the answer",
    "reset in mid-upload",
    "reset in mid-answer",
    "truncated request",
    "answer lost",
    "duplicated",
    "duplicated at once",
    "delayed",
    "5xx",
    "429",
    "wrong bytes sent",
    "wrong bytes received",
    "not HTTP",
    "a page for an answer",
]
"""What may happen to a request on its way, or to its answer.

    refused                  nothing listens for a while
    reset before the answer  the server never sees the request
    reset in mid-upload      half of the body arrives, then both connections are reset
    reset in mid-answer      the server has answered, half of the answer arrives
    truncated request        half of the body arrives and nothing more, in an orderly way
    answer lost              the server has answered, and nobody hears it
    duplicated               the request comes again after it was answered, as from a proxy that tries again
    duplicated at once       the request comes twice at the same time
    delayed                  it takes longer
    5xx, 429                 somebody before the server answers so, in words of its own
    wrong bytes sent         a bit of an upload is flipped on its way
    wrong bytes received     a bit of a download is flipped on its way
    not HTTP                 bytes that mean nothing
    a page for an answer     200 and a page, as of a hotel's network

Bits are flipped where a digest goes with the bytes. Small messages have none: TLS keeps them whole. Requests are
truncated and answers lost where it is an upload's.
"""

LINE_FAULTS: Sequence[LineFault] = get_args(LineFault)


UPLOADS_MEET: Sequence[LineFault] = (
    "reset in mid-upload",
    "reset in mid-answer",
    "truncated request",
    "answer lost",
    "duplicated",
    "wrong bytes sent",
)
"""Faults that only uploads meet: a promise is what must not be lost. They meet no others, and more often."""

DOWNLOADS_MEET: Sequence[LineFault] = ("wrong bytes received",)
"""Faults that only downloads of adapters meet."""

ANY_MEETS: Sequence[LineFault] = tuple(fault for fault in LINE_FAULTS if fault not in (*UPLOADS_MEET, *DOWNLOADS_MEET))

UPLOADS_TIMES = 4.0
"""How much more often uploads meet faults: one request in ten is one."""


class LineFaults:
    """Deals faults to requests: every kind that a request can meet in turn, shuffled anew each time, so that a short
    run meets all of them.

    Args:
        seed: equal seeds deal equal faults to equal requests.
        chance: of a request to meet one.
    """

    def __init__(self, seed: str, chance: float) -> None:
        self._random, self._chance = random.Random(seed), chance
        self._waiting: dict[Sequence[LineFault], list[LineFault]] = {}

    def fault_of(self, request: Request) -> LineFault | None:
        """The fault that a request meets; None for none."""
        chance = self._chance * (UPLOADS_TIMES if request.is_upload else 1.0)
        if self._random.random() >= chance:
            return None
        kinds = UPLOADS_MEET if request.is_upload else ANY_MEETS
        if request.is_download and self._random.random() < 0.5:
            kinds = DOWNLOADS_MEET
        waiting = self._waiting.setdefault(kinds, [])
        if not waiting:
            waiting += self._random.sample(kinds, len(kinds))
        fault = waiting.pop()
        if fault == "duplicated at once" and request.path == "/v1/devices":
            return None  # of two credentials the board might hear the one that ended first
        return fault

    def uniform(self, low: float, high: float) -> float:
        """A number that a fault needs, such as how long a delay is."""
        return self._random.uniform(low, high)
