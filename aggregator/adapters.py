"""The adapters that boards download: any version that is still kept, cut to the ranks that they ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from aggregator.cuts import Cut
from aggregator.disk import Disk
from aggregator.errors import CallError, StateError
from aggregator.merge.state import AdapterState, initial_state
from aggregator.restore import read_version
from aggregator.terms import Terms
from wire.checks import check_ranks
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, Dtype


class Adapters:
    """Makes and finds the files. `upload` is the run's number format; context and basis go out in bf16 unless it is
    fp32: B is trained on what was received, so their rounding costs nothing that B's own does not."""

    def __init__(self, terms: Terms, disk: Disk, upload: Dtype) -> None:
        self._terms, self._disk = terms, disk
        self._dtype: Dtype = "fp32" if upload == "fp32" else "bf16"
        self._cutting = asyncio.Lock()

    async def get(self, newest: AdapterState, version: int, ranks: Sequence[int]) -> Cut:
        """The file of `version` cut to `ranks`. Raises CallError where there is no such version or rank."""
        if version > newest.version:
            raise _no_version(version, newest)
        check_ranks(ranks, self._terms)
        if version == 0 and any(ranks):
            raise CallError("bad_request", "version 0 has no basis", "Ask for ranks 0.")
        async with self._cutting:  # one version at a time is read into memory
            make = partial(self._cut, newest, version, ranks)
            return await asyncio.to_thread(self._disk.cuts.get, version, ranks, make)

    def _version(self, newest: AdapterState, version: int) -> AdapterState:
        if version == newest.version:
            return newest
        if version == 0:
            return initial_state(self._terms.weights)
        try:
            return read_version(self._disk.blobs, self._disk.store.versions(), version)
        except (KeyError, StateError) as error:  # dropped, perhaps just now
            raise _no_version(version, newest) from error

    def _cut(self, newest: AdapterState, version: int, ranks: Sequence[int]) -> bytes:
        state = self._version(newest, version)
        adapter = Adapter(
            protocol=PROTOCOL_VERSION,
            run_id=self._terms.run_id,
            version=state.version,
            manifest=self._terms.manifest,
            parts=self._terms.rule.cut(state, ranks, self._dtype),
        )
        return encode(adapter)


def _no_version(version: int, newest: AdapterState) -> CallError:
    return CallError("not_found", f"there is no version {version} here", f"The newest is {newest.version}.")
