"""Obstacles on the board itself that may pass: a disk that takes no files, data that is being replaced.

An obstacle costs the steps since the last saved training, and no more: the client tells its people and its server once,
waits ever longer, and goes on by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edge_client.agent.events import Events
from edge_client.errors import ClientError, ExitCode
from edge_client.state.folder import StateFolder

MAX_DATA_TRIES = 10
"""Times in a row that the data may be unreadable, some five minutes with the pauses between them: long enough for an
editor, a copy or a memory stick. Text that is gone for longer is for a person to mend, as it is at the start."""

_SENTENCES: Mapping[ExitCode, str] = MappingProxyType(
    {
        ExitCode.DISK: "its disk is full, or cannot be written: it waits until that is mended",
        ExitCode.DATA: "its text cannot be read now: it tries again",
    }
)
"""What the server is told, by kind: errors' own words have paths in them."""


class Obstacle:
    """Whether something on the board is in the way now."""

    def __init__(self, folder: StateFolder, events: Events) -> None:
        self._folder, self._events = folder, events
        self._kind: ExitCode | None = None
        self._n_tries = 0

    async def meet(self, error: ClientError, round_id: int) -> None:
        """A task ended with `error`, which is told once; the task is to be tried again. Raises `error` where waiting
        does not help."""
        kind = ExitCode(error.exit_code)
        self._n_tries = self._n_tries + 1 if kind is self._kind else 1
        if kind not in _SENTENCES or (kind is ExitCode.DATA and self._n_tries == MAX_DATA_TRIES):
            raise error
        if kind is not self._kind:
            self._kind = kind
            await self._events.obstacle(round_id, error, _SENTENCES[kind])

    def try_out(self) -> None:
        """Raise DiskError while the disk takes nothing: no worker need be started to find that out."""
        if self._kind is ExitCode.DISK:
            self._folder.try_out()

    async def passed(self, round_id: int) -> None:
        """A task was carried out."""
        if self._kind is not None:
            self._kind, self._n_tries = None, 0
            await self._events.obstacle_passed(round_id)
