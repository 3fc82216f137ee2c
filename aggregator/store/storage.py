"""The storage of one run: its records, its blobs, unfinished uploads, and adapters cut to ranks."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.store.blobs import Blobs
from aggregator.store.contract import RunRecords
from aggregator.store.slices import Cuts
from aggregator.store.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Storage:
    """The four places where a run keeps what must outlive it. The run is their only writer."""

    records: RunRecords
    blobs: Blobs
    uploads: Uploads
    cuts: Cuts
