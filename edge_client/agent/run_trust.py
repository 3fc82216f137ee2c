"""Trust in the server's run: each answer about it is compared with what this board knew of it."""

from __future__ import annotations

from contextlib import suppress

from edge_client.agent.events import Events
from edge_client.errors import DiskError
from edge_client.network.api import Api
from edge_client.network.errors import RequestError
from edge_client.state.folder import StateFolder
from edge_client.state.known_run import (
    KnownRun,
    is_damaged,
    read_known_run,
    require_same_run,
    with_versions,
    write_known_run,
)
from wire.messages import Version
from wire.run import RunInfo


class RunTrust:
    """The run that a board takes part in, kept in its folder."""

    def __init__(self, api: Api, folder: StateFolder, events: Events) -> None:
        self._api, self._folder, self._events = api, folder, events

    async def begin(self, run: RunInfo) -> None:
        """Take part in the run that an enrolment has led to; it may be another one than before."""
        before = read_known_run(self._folder)
        if before is not None and before.run_id != run.run_id:
            self._events.console.notice(f"this board takes part in {run.run_id} from now on, it did in {before.run_id}")
        if before is None or before.run_id != run.run_id:
            write_known_run(self._folder, KnownRun.beginning(run))
        await self.check(run)

    async def check(self, run: RunInfo) -> None:
        """Compare an answer with what is known, and keep what it adds.

        Raises BaseModelError or RefusedError for another run; a history that is another one is told.
        """
        stored = read_known_run(self._folder)
        known = stored or KnownRun.beginning(run)
        if stored is None and is_damaged(self._folder):
            self._events.console.notice(
                "what this board knew of its run cannot be read: the server's word is taken for base and weights"
            )
        require_same_run(known, run)
        after, warning = with_versions(known, run, await self._since(known, run))
        if warning:
            await self._events.other_history(run, warning)
        if after != stored:
            with suppress(DiskError):  # the next answer is compared with what is kept, and adds the same
                write_known_run(self._folder, after)

    async def _since(self, known: KnownRun, run: RunInfo) -> list[Version]:
        """The versions between the known one and the answer's, as the server says."""
        found: list[Version] = []
        reached = known.version
        while reached < run.version:
            try:
                more = (await self._api.history(reached)).versions
            except RequestError:  # the chain will not fit, which is told
                break
            if not more or more[-1].version <= reached:
                break
            found += more
            reached = more[-1].version
        return found
