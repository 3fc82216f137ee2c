"""Pauses of a board that may not train now, by its operator's rules.

While a job runs, the rules are asked every few seconds. Where they object, the worker is told to pause: it finishes its
step, saves its place and waits without a processor. It keeps what it has loaded, for heat passes in a minute. A pause
that lasts, or is known to, gives the memory back: the worker ends, and the board asks its server for nothing until it
may train. The server then holds it for silent, and no round waits for it longer than `rounds.liveness_s`. Afterwards it
goes on where it was, if that is still wanted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge_client.agent.manners.leave_to_train import LOOK_EVERY_S, Facts, Objection, Rules, objection

KEEP_S = 60.0
"""How long a paused worker keeps its memory: loading the base again takes seconds, and a chip cools within a minute."""

TOLD_EVERY_S = 600.0
"""Least time between two words about pauses for the same reason: in summer a board may pause every minute."""


class Away(Exception):
    """The board may not train for longer: its worker is to end, and its work to be gone on with later."""


class Pausable(Protocol):
    """The training worker, as far as it is paused."""

    is_parked: bool

    def pause(self) -> None:
        """Ask it to wait between two steps."""

    def go_on(self) -> None:
        """Let it go on."""


class Listener(Protocol):
    """Who is told of pauses."""

    def paused(self, why: str, *, aloud: bool) -> None:
        """Training waits; `why` is for people, and `aloud` says whether more than the status is to tell."""

    def unpaused(self, *, aloud: bool) -> None:
        """Training goes on."""


class Pauses:
    """Holds training up as long as the rules object.

    Args:
        rules: of the board's operator.
        look: reads what they ask for.
        worker: the one that is paused.
        listener: is told.
        look_every_s: between two looks while a job runs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        rules: Rules,
        look: Callable[[], Facts],
        *,
        worker: Pausable,
        listener: Listener,
        look_every_s: float = LOOK_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rules, self._look, self._worker, self._listener = rules, look, worker, listener
        self._look_every_s, self._clock = look_every_s, clock
        self._objection: Objection | None = None
        self._since_s = 0.0
        self._told_s: dict[frozenset[str], float] = {}
        self._is_told = False

    async def until_allowed(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Wait until the board may train."""
        while (found := self._ask()) is not None:
            await sleep(found.ask_again_s)

    async def until_away(self) -> None:
        """Pause the worker whenever the rules object, and let it go on. Raises Away where it is to end; never returns
        otherwise. For the time of one job."""
        while True:
            found = self._ask()
            if found is None:
                self._worker.go_on()
            else:
                self._worker.pause()  # again at each look: one that has just started does not listen yet
                if self._worker.is_parked and self._lasts_s(found) > KEEP_S:
                    raise Away(found.why)
            await asyncio.sleep(self._look_every_s)

    def _lasts_s(self, found: Objection) -> float:
        """How long this pause is known to last in all."""
        return self._clock() - self._since_s + found.least_s

    def _ask(self) -> Objection | None:
        before, now_s = self._objection, self._clock()
        self._objection = found = objection(self._rules, self._look(), before)
        if found is None:
            if before is not None:
                self._listener.unpaused(aloud=self._is_told)
            return None
        if before is None:
            self._since_s, self._is_told = now_s, False
        if before is None or found.kinds != before.kinds:
            aloud = now_s - self._told_s.get(found.kinds, float("-inf")) >= TOLD_EVERY_S
            if aloud:
                self._told_s[found.kinds], self._is_told = now_s, True
            self._listener.paused(found.why, aloud=aloud)
        return found
