"""Everything of a run that lies on the disk."""

from __future__ import annotations

from dataclasses import dataclass

from aggregator.blobs import Blobs
from aggregator.cuts import Cuts
from aggregator.store import Store
from aggregator.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Storage:
    store: Store
    blobs: Blobs
    uploads: Uploads
    cuts: Cuts
