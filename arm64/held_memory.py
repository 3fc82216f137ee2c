"""Measures what a training takes of memory without what QEMU takes: run inside a root, or natively to compare.

    python -m arm64.held_memory SETTING            SETTING: its place in SETTINGS below; one JSON object

Under user emulation QEMU's translations and tables lie in the same process, and the kernel counts them as its memory.
QEMU shows a program only the program's own mappings in /proc/self/maps, and /proc/self/pagemap tells which of their
pages are there: that sum is the program's own. It has no peak; that is taken for the kernel's (VmHWM) less what is not
the program's own at the end, which is the most that QEMU had.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import builtin_base
from benchmarks.memory.jobs import prepare
from benchmarks.memory.settings import BUILTIN, Setting
from braid_common.units import MIB
from edge_client.data.load import load_data
from edge_client.engines.contract import Host
from edge_client.host.worker_memory import peak_bytes, prepare_for_training, resident_bytes, return_free_memory

SETTINGS = (
    Setting(BUILTIN, "fp32", "all", 8, 64, 16, 0.5, steps=4),
    Setting(BUILTIN, "fp32", "decoder", 8, 64, 16, 0.5, cache="int8", steps=4),
    Setting(BUILTIN, "int8", "decoder", 8, 64, 16, 0.5, compute="fp32", steps=4),
    Setting(BUILTIN, "bf16", "decoder", 8, 64, 16, 0.5, steps=4),
)
"""fp32 arithmetic is what boards without bf16 take; small, for it is emulated."""

PRESENT = 1 << 63
"""The bit of a page of pagemap that is in memory."""

CHUNK_PAGES = 1 << 16
TRIED_BYTES = 64 * MIB
"""Taken once, to see that it is counted."""


def own_bytes() -> int:
    """Resident bytes of the mappings that this program is shown as its own."""
    page_bytes = os.sysconf("SC_PAGESIZE")
    n_pages = 0
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pages:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            first, end = (int(part, 16) // page_bytes for part in span.split("-"))
            if rights.startswith("---") or "[vsyscall]" in line:
                continue
            for begin in range(first, end, CHUNK_PAGES):
                count = min(CHUNK_PAGES, end - begin)
                entries = memoryview(os.pread(pages.fileno(), 8 * count, 8 * begin)).cast("Q")
                n_pages += sum(entry >= PRESENT for entry in entries)
    return n_pages * page_bytes


def require_counting() -> None:
    """Raise RuntimeError where memory that is taken is not counted: QEMU then has other addresses than the program."""
    before = own_bytes()
    taken = ctypes.create_string_buffer(TRIED_BYTES)
    ctypes.memset(taken, 1, TRIED_BYTES)
    counted = own_bytes() - before
    if not 0.95 < counted / TRIED_BYTES < 1.05:
        raise RuntimeError(f"{TRIED_BYTES} bytes were taken, and {counted} are seen")


def main(number: int) -> dict[str, object]:
    """Train by a setting in this process, and say what was held."""
    require_counting()
    prepare_for_training()
    import torch

    from edge_client.engines.lean.engine import open_engine

    with tempfile.TemporaryDirectory() as folder:
        setting = SETTINGS[number]
        prepared = prepare(setting, builtin_base.folder(), Path(folder), threads=1)
        load_data(prepared.job.data)
        return_free_memory()
        imports = own_bytes()
        began = resident_bytes()
        engine = open_engine(Host())
        engine.run(prepared.job)
        own, resident, most = own_bytes(), resident_bytes(), peak_bytes()
    return {
        "machine": platform.machine(),
        "torch": str(torch.__version__),
        "setting": f"{setting.format} base, {setting.mode.compute} arithmetic, {setting.work}"
        + (f", {setting.cache} cache" if setting.cache != "none" else ""),
        "imports_bytes": imports,
        "emulator_bytes": resident - own,
        "emulator_at_first_bytes": began - imports,
        "peak_bytes": most - (resident - own),
        "predicted_bytes": prepared.predicted.total_bytes,
        "predicted_imports_bytes": prepared.predicted.imports_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
