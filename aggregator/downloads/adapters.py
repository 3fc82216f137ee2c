"""The adapters that boards download: any version that is still kept, cut to the ranks that they ask for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from aggregator.downloads.encoder import AdapterEncoder, HeldState
from aggregator.downloads.sound_files import SoundFiles
from aggregator.downloads.versions import read_version
from aggregator.errors import CallError, StateError
from aggregator.merge.state import AdapterState, initial_state
from aggregator.settings.terms import Terms
from aggregator.store.slices import Cut
from aggregator.store.storage import Storage
from wire.checks import check_ranks
from wire.errors import WireError
from wire.limits import VERSION_DIGEST_CHARS
from wire.routes import Held


class Allowance(Protocol):
    """The computing that may be done for whoever asks."""

    def need(self) -> None:
        """Raise CallError where there is no more of it now."""

    def spend(self, seconds: float) -> None:
        """Count computing that was done."""


class _Free:
    """No limit at all."""

    def need(self) -> None:
        return

    def spend(self, seconds: float) -> None:
        return


FREE: Allowance = _Free()


class Adapters:
    """Makes and finds the files. Frozen factors and basis go out in bf16 unless the run uploads in fp32: B is trained
    on what was received, so their rounding costs nothing that B's own does not."""

    def __init__(self, terms: Terms, storage: Storage, sound_files: SoundFiles) -> None:
        self._terms, self._storage, self._sound_files = terms, storage, sound_files
        self._encoder = AdapterEncoder(terms)
        self._older: AdapterState | None = None  # the last that was read: boards are mostly one version behind
        self._cutting = asyncio.Lock()

    async def get(
        self,
        newest: AdapterState,
        version: int,
        ranks: Sequence[int],
        held: Held | None = None,
        allowance: Allowance = FREE,
    ) -> Cut:
        """The file of `version` cut to `ranks`; what it differs in from what the board holds, where that is smaller.

        Raises CallError where there is no such version or rank, and what `allowance` raises. What is held may be
        anything: what is not here, or has ranks that no board can have, gives the whole.
        """
        if version > newest.version:
            raise await asyncio.to_thread(self._no_version, version, newest)
        check_ranks(ranks, self._terms)
        if version == 0 and any(ranks):
            raise CallError("bad_request", "version 0 has no basis", "Ask for ranks 0.")
        if (found := self._storage.cuts.find(version, ranks, held)) is not None:
            if await self._sound_files.is_sound(found.path, found.digest):
                return found  # at once, whatever is being made for others
            self._storage.cuts.drop(found)  # it is made again
        async with self._cutting:  # one version at a time is read into memory
            allowance.need()
            make = partial(self._file, newest, version, ranks, held)
            cut, seconds = await asyncio.to_thread(self._made, version, ranks, make, held)
            allowance.spend(seconds)
            return cut

    def _made(
        self, version: int, ranks: Sequence[int], make: Callable[[], bytes], held: Held | None
    ) -> tuple[Cut, float]:
        """The file, and the seconds of processor that it took."""
        began = time.thread_time()
        cut = self._storage.cuts.get(version, ranks, make, held)
        return cut, time.thread_time() - began

    def _file(self, newest: AdapterState, version: int, ranks: Sequence[int], held: Held | None) -> bytes:
        state = self._version(newest, version)
        return self._encoder.encode(state, ranks, None if held is None else self._held_state(newest, held))

    def _held_state(self, newest: AdapterState, held: Held) -> HeldState | None:
        """The version and ranks that a board says it holds; None where that is not here any more, or never was: a run
        that was restored makes other versions of the same numbers."""
        stored = self._storage.records.versions().get(held.version, "")
        if stored[:VERSION_DIGEST_CHARS] != held.version_digest:
            return None
        try:
            check_ranks(held.ranks, self._terms)
            return HeldState(self._version(newest, held.version), held.ranks)
        except (CallError, WireError):
            return None

    def _version(self, newest: AdapterState, version: int) -> AdapterState:
        if version == newest.version:
            return newest
        if version == 0:
            return initial_state(self._terms.weights)
        if self._older is None or self._older.version != version:
            self._older = None  # there is memory for one
            try:
                self._older = read_version(self._storage.blobs, self._storage.records.versions(), version)
            except (KeyError, StateError) as error:  # dropped, perhaps just now
                raise self._no_version(version, newest) from error
        return self._older

    def _no_version(self, version: int, newest: AdapterState) -> CallError:
        """The refusal of a version, with those that there are; 0, the bare base, is never stored."""
        kept = sorted({*self._storage.records.versions(), 0, newest.version})
        return CallError(
            "not_found",
            f"there is no version {version} here",
            f"The newest is {newest.version}; kept are {ranges(kept)}.",
        )


def ranges(numbers: Sequence[int]) -> str:
    """Sorted whole numbers with neighbours joined: "0, 5-7, 9"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
