"""The certificate that a running server shows: its own is made anew before it ends, one of an authority is read again
when its files change. No restart, and connections that are open stay open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from aggregator.errors import ServerError
from aggregator.http.tls import Tls, is_ending

LOOK_EVERY_S = 60.0
"""Between two looks at the certificate's files: whoever renews them waits a minute at most."""

log = logging.getLogger("aggregator")

_Stamp = tuple[tuple[int, int, int], ...]  # inode, size and time of each file


class Certificates:
    """The certificate shown now, and those that follow it.

    Args:
        tls: the one to begin with.
        again: reads the files as at the start; makes the server's own certificate anew where it ends soon.
        wall_clock: seconds since 1970.
    """

    def __init__(self, tls: Tls, again: Callable[[], Tls], wall_clock: Callable[[], float] = time.time) -> None:
        self.tls = tls
        self._again, self._wall_clock = again, wall_clock
        self._seen, self._told = _stamp(tls), ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate shown now; "" for plain HTTP."""
        return self.tls.certificate

    def look(self) -> bool:
        """Show another certificate if it is time; whether it is another one. Blocks.

        Files that cannot be used, as half of a pair that is just being written, leave the one shown in its place.
        """
        context, ends_at = self.tls.context, self.tls.ends_at
        ends = ends_at is not None and is_ending(ends_at, self._wall_clock())
        stamp = _stamp(self.tls)
        if context is None or self.tls.files is None or (stamp == self._seen and not ends):
            return False
        try:
            fresh = self._again()
            assert fresh.files is not None
            context.load_cert_chain(*fresh.files)  # for the connections from now on
        except (ServerError, OSError) as error:  # ssl's errors are OSErrors
            self._seen = stamp
            if str(error) != self._told:
                log.warning("the certificate stays as it is: %s", error)
            self._told = str(error)
            return False
        before, self.tls = self.tls.certificate, replace(fresh, context=context)
        self._seen, self._told = _stamp(self.tls), ""
        return self.tls.certificate != before

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Look again and again, until cancelled; `on_change` hears of another certificate."""
        while self.tls.context is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            if await asyncio.to_thread(self.look):
                on_change()


def _stamp(tls: Tls) -> _Stamp | None:
    """A value that changes when the certificate's files do; None where they cannot be looked at."""
    try:
        found = [path.stat() for path in tls.files or ()]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
