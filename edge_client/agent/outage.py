"""Outages of the server, told once when it goes away and once when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable

from braid_common.units import show_seconds
from edge_client.agent.console import Console
from edge_client.network.errors import CopiedError, NotKnownError, ThrottledError, TryAgain, Unavailable


class Outage:
    """Whether the server is away now. `on_change` hears False when it goes and True when it is back."""

    def __init__(
        self,
        console: Console,
        *,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._on_change, self._clock = console, on_change, clock
        self._since_s: float | None = None
        self._is_unknown = False

    def begin(self, error: Unavailable) -> None:
        """A call failed and will be tried again. Only the first one of an outage is told, and whether the server that
        is back does not know this board."""
        is_unknown = isinstance(error, NotKnownError)
        is_told = self._since_s is not None and (self._is_unknown or not is_unknown)
        if is_told or isinstance(error, TryAgain):
            return
        self._since_s, self._is_unknown = self._since_s or self._clock(), is_unknown
        text = f"server away: {error.message}; trying again until it is back"
        if isinstance(error, CopiedError):
            text = f"not served: {error.message}; trying again until that one has stopped"
        elif isinstance(error, ThrottledError):
            text = f"the server asks for patience: {error.message}; trying again"
        elif is_unknown:
            text = f"not known: {error.message}; trying again until the server takes this board"
        if error.hint:
            text += f"\n  → {error.hint}"
        self._console.event("offline", text, message=error.message, hint=error.hint)
        self._on_change(False)

    def end(self) -> None:
        """A call was answered."""
        if self._since_s is None:
            return
        away_s, self._since_s = self._clock() - self._since_s, None
        self._console.event("online", f"server is back after {show_seconds(round(away_s))}", seconds=round(away_s, 1))
        self._on_change(True)
