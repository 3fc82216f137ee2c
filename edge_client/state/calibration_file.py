"""The file of the state folder that keeps a board's calibration of predicted memory."""

from __future__ import annotations

import msgspec

from braid_common.json_file import read_small
from edge_client.plan.calibration import Calibration
from edge_client.state.folder import StateFolder

FILE = "calibration.json"


def read_calibration(folder: StateFolder, key: str) -> Calibration:
    """The calibration that was measured for `key`, an empty one where the file is missing, damaged or of another base
    or board."""
    kept = read_small(folder.path / FILE, Calibration)
    return kept if kept is not None and kept.key == key else Calibration(key=key)


def write_calibration(folder: StateFolder, calibration: Calibration) -> None:
    """Keep a calibration in `folder`, which is locked. Raises DiskError."""
    folder.write(FILE, msgspec.json.encode(calibration))
