"""Writing a report: the page for people and the figures for programs, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aggregator.errors import NothingToExportError
from aggregator.report.whole_run.page import page
from braid_common.atomic_file import make_folder, write_atomically

PAGE, JSON = "report.html", "report.json"
"""The names of both files; an older report of these names is replaced."""


def write_report(figures: Mapping[str, Any], out: Path) -> tuple[Path, Path]:
    """Write both files for their owner alone, each whole or not at all. Raises NothingToExportError where the folder
    cannot be used."""
    texts = {PAGE: page(figures), JSON: json.dumps(figures, indent=1, allow_nan=False) + "\n"}
    try:
        make_folder(out)
        for name, text in texts.items():
            write_atomically(out / name, text.encode())
    except OSError as error:
        raise NothingToExportError(f"{out} cannot be written: {error}", "Choose another --out.") from error
    return out / PAGE, out / JSON
