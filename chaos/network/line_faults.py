"""The faults of a line, and which request meets which: drawn by seed, every kind in turn. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
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

Bits are flipped where a digest goes with the bytes. Small messages have none: TLS keeps them whole.
"""

LINE_FAULTS: Sequence[LineFault] = get_args(LineFault)


def _any(request: Request) -> bool:
    return True


def _has_body(request: Request) -> bool:
    return len(request.body) > 1


def _uploads(request: Request) -> bool:
    return request.method == "PATCH" and len(request.body) > 1


def _downloads(request: Request) -> bool:
    return request.method == "GET" and request.path.startswith("/v1/adapters/")


def _may_come_twice(request: Request) -> bool:
    """At the same time. An enrolment may not: of two credentials the board might hear the one that ended first."""
    return request.path != "/v1/devices"


MEETS: Mapping[LineFault, Callable[[Request], bool]] = {
    "reset in mid-upload": _uploads,
    "truncated request": _has_body,
    "duplicated at once": _may_come_twice,
    "wrong bytes sent": _uploads,
    "wrong bytes received": _downloads,
    **dict.fromkeys(("answer lost", "reset in mid-answer", "duplicated"), _uploads),
}
"""Which requests a fault may meet, where it is not any. An answer that is lost matters most where it was a promise."""


class LineFaults:
    """Deals faults to the requests of one board.

    Kinds come in turn, shuffled anew each time, so that a short run meets all of them; one that a request cannot meet
    waits for the next that can.

    Args:
        seed: equal seeds deal equal faults to equal requests.
        chance: of a request to meet one.
    """

    def __init__(self, seed: str, chance: float) -> None:
        self._random, self._chance = random.Random(seed), chance
        self._waiting: list[LineFault] = []

    def fault_of(self, request: Request) -> LineFault | None:
        """What happens to a request; None for nothing."""
        if self._random.random() >= self._chance:
            return None
        for turn in range(2):
            for i, fault in enumerate(self._waiting):
                if MEETS.get(fault, _any)(request):
                    return self._waiting.pop(i)
            if turn == 0:
                self._waiting += self._random.sample(LINE_FAULTS, len(LINE_FAULTS))
        return None

    def uniform(self, low: float, high: float) -> float:
        """A number that a fault needs, such as how long a delay is."""
        return self._random.uniform(low, high)
