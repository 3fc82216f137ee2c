"""The newest version's file, which nobody reads while the server runs: boards get what is cut from memory. Damage would
be found by the next start, which has no memory to mend it from."""

from __future__ import annotations

import asyncio
import logging

from aggregator.errors import StateError
from aggregator.merge.state import AdapterState, encode_state
from aggregator.run.memory import RunMemory
from aggregator.store.blobs import Blobs

LOOK_EVERY_S = 3600.0
"""Between two looks at the file: reading it takes a fraction of a second."""


async def look_after(run: RunMemory) -> None:
    """Look at the file now and then, until cancelled. What the disk refuses is tried again the next time."""
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await mend(run)
        except OSError as error:
            run.note(f"version {run.state.version} cannot be looked at: {error}", level=logging.ERROR)


async def mend(run: RunMemory) -> None:
    """Write the newest version's file anew, from memory, where it is missing or damaged, and tell people. Raises
    OSError where the disk refuses."""
    async with run.writing:  # no other version becomes the newest meanwhile
        if not run.digest:
            return
        reason = await asyncio.to_thread(_mended, run.storage.blobs, run.state, run.digest)
        if reason:
            sentence = f"the file of version {run.state.version} was written again, from memory: {reason}"
            run.losses.append(sentence)
            run.note(sentence, level=logging.ERROR)


def _mended(blobs: Blobs, state: AdapterState, digest: str) -> str:
    """The fault of the file, which is sound now; "" where it was. Raises OSError."""
    try:
        blobs.check(digest)
    except StateError as error:
        blobs.set_aside(digest)
        written = blobs.put(encode_state(state))
        assert written == digest, "a version in memory is the one on the disk, to the bit"
        return error.message
    return ""
