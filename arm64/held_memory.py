"""Measures what a training takes of memory without what QEMU takes: run inside a root, or natively to compare.

    python -m arm64.held_memory NUMBER            NUMBER: a setting's place in SETTINGS below; prints one JSON object
    python -m arm64.held_memory --job FILE        started by the first, in a process that holds what a worker holds

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
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from edge_client.engines.contract import Host
from edge_client.host.worker_memory import peak_bytes, prepare_for_training, resident_bytes, return_free_memory
from edge_client.jobs.messages import TrainJob

N_SETTINGS = 2

N_EVALUATED = 4
"""Held-out examples that a round looks at first."""

PRESENT = 1 << 63
"""The bit of a page of pagemap that is in memory."""

CHUNK_PAGES = 1 << 16
TRIED_BYTES = 64 << 20
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


def measure(number: int) -> dict[str, object]:
    """Train by a setting in a process of its own, and compare what was held with the prediction."""
    import builtin_base
    from benchmarks.memory.jobs import prepare
    from benchmarks.memory.settings import BUILTIN, Setting

    require_counting()
    # Rounds in fp32 arithmetic, as boards without bf16 take it. Small, for they are emulated.
    settings = (
        Setting(BUILTIN, "fp32", "all", 4, 64, 16, 0.5),
        Setting(BUILTIN, "int8", "decoder", 4, 64, 16, 0.5, compute="fp32"),
    )
    setting = settings[number]
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(setting, builtin_base.folder(), Path(folder), threads=1)
        job = msgspec.structs.replace(prepared.job, max_eval_examples=N_EVALUATED)
        file = Path(folder) / "job"
        file.write_bytes(msgspec.msgpack.encode(job))
        command = [sys.executable, "-m", "arm64.held_memory", "--job", str(file)]
        held = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return {
        "machine": platform.machine(),
        "setting": f"{setting.format} base, {setting.mode.compute} arithmetic, {setting.work}",
        "predicted_bytes": prepared.predicted.total_bytes,
        **held,
    }


def train(file: Path) -> dict[str, object]:
    """Carry out a job in this process, with what a worker has imported and nothing else, and say what was held."""
    prepare_for_training()
    import torch

    from edge_client.engines.lean.engine import LeanEngine
    from edge_client.engines.lean.session import Session

    job = msgspec.msgpack.decode(file.read_bytes(), type=TrainJob)
    session = Session(Host())
    session.data(job.data)
    session.tokeniser(job)
    return_free_memory()
    imports = own_bytes()
    LeanEngine(session).run(job)
    own, resident, most = own_bytes(), resident_bytes(), peak_bytes()
    return {
        "torch": str(torch.__version__),
        "imports_bytes": imports,
        "emulator_bytes": resident - own,
        "peak_bytes": most - (resident - own),
    }


if __name__ == "__main__":
    print(json.dumps(train(Path(sys.argv[2])) if sys.argv[1] == "--job" else measure(int(sys.argv[1]))))
