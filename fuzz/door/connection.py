"""A connection that tells whether the server has done its part, so that nobody has to wait for what will never come."""

from __future__ import annotations

from typing import Any

from aggregator.http.guard.connection import Connection


class WatchedConnection(Connection):
    """A connection of the server, seen from inside.

    aiohttp says to nobody that it waits for bytes; so its own attributes are read here, and nowhere else.
    """

    last: WatchedConnection | None = None
    """The connection that was opened last."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.has_ended = False
        WatchedConnection.last = self

    async def start(self) -> None:
        """Serve the connection, to its end."""
        try:
            await super().start()
        finally:
            self.has_ended = True

    @property
    def waits_for_bytes(self) -> bool:
        """Whether nothing can happen before more bytes come: of a request's head, or of its body."""
        if self.has_ended:
            return True
        if self._waiter is not None and not self._waiter.done() and not self._messages:
            return True
        request = self._current_request
        waiter = None if request is None else getattr(request.content, "_waiter", None)
        return waiter is not None and not waiter.done()
