"""What of a run lies on the disk: its rows, its blobs, unfinished uploads and adapters cut to ranks."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.store.blobs import Blobs
from aggregator.store.slices import Cuts
from aggregator.store.store import Store
from aggregator.store.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Disk:
    store: Store
    blobs: Blobs
    uploads: Uploads
    cuts: Cuts
