"""Versions of the adapter as stored, and the few older ones that late updates are read against."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from aggregator.errors import StateError
from aggregator.merge.state import AdapterState, decode_state
from aggregator.store.blobs import Blobs
from aggregator.store.contract import RunRecords
from wire.errors import WireError

MAX_DECODED = 2
"""Older versions in memory: late updates of one version often come together. Another is read when it is needed."""


def read_version(blobs: Blobs, versions: Mapping[int, str], version: int) -> AdapterState:
    """A stored version. Raises StateError where it is missing or damaged, KeyError where it was never stored."""
    return decoded(blobs.get(versions[version]), version)


def decoded(data: bytes, version: int) -> AdapterState:
    """A version of these bytes. Raises StateError where they are of no format that this program reads."""
    try:
        return decode_state(data)
    except WireError as error:
        raise StateError(f"Version {version} cannot be read: {error}", "Restore the folder from a backup.") from error


class Versions:
    """Reads versions, and keeps the last few that were asked for. Not for several threads at once."""

    def __init__(self, records: RunRecords, blobs: Blobs) -> None:
        self._records, self._blobs = records, blobs
        self._decoded: OrderedDict[int, AdapterState] = OrderedDict()

    def get(self, version: int, newest: AdapterState) -> AdapterState:
        """A version that is still kept. Raises StateError where it cannot be read or was dropped."""
        if version == newest.version:
            return newest
        state = self._decoded.pop(version, None) or self._read(version)
        self._decoded[version] = state  # the most recently used one is the last
        while len(self._decoded) > MAX_DECODED:
            self._decoded.popitem(last=False)
        return state

    def forget(self) -> None:
        """Let go of all that is kept."""
        self._decoded.clear()

    def _read(self, version: int) -> AdapterState:
        try:
            return read_version(self._blobs, self._records.versions(), version)
        except KeyError as error:
            raise StateError(f"Version {version} is no longer kept.", "Restore the folder from a backup.") from error
