"""What of a run lies on the disk: its rows, its blobs, unfinished uploads and adapters cut to ranks."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.cuts import Cuts
from aggregator.store import Store
from aggregator.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Disk:
    store: Store
    blobs: Blobs
    uploads: Uploads
    cuts: Cuts
