"""Linux calls of the worker about itself: memory in use, memory to give back, and to die with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import warnings
from pathlib import Path

from braid_common import heap

_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "not enough memory", "out of memory")

MMAP_THRESHOLD_BYTES = 64 << 20
"""Tensors from this size on get pages of their own, which the kernel clears when it gives them and takes back when they
are freed; smaller ones reuse the heap."""

TRIM_THRESHOLD_BYTES = 2**31 - 1
"""Free memory at the heap's end that malloc keeps: all of it. Given back, it returns as pages that the kernel must
clear, for a third of the time of a training step; the trainer gives it back when it comes near its plan's peak."""

CAREFUL_SHARE = 0.75
"""Of a planned peak that is the limit itself: up to here a training step keeps what the one before left free. Where the
limit is a quarter above the peak, it keeps all."""

OOM_SCORE = 500
"""Added to the worker's badness, so that the kernel kills it rather than the network process, which can say so."""


def peak_bytes() -> int:
    """The most memory that this process ever held (VmHWM), 0 where the system does not say."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Memory held now (VmRSS), 0 where the system does not say."""
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), 0)


def return_free_memory() -> None:
    """Ask malloc to give free pages back to the system. Does nothing where the C library is not glibc."""
    heap.give_back()


def return_memory_near(peak_bytes: int, limit_bytes: int) -> None:
    """Give free memory back if what is held nears `peak_bytes`, the peak that was planned under a limit.

    Doing so costs: pages that come back must be cleared by the kernel, which takes longer than to compute on them. So
    it is done the earlier the less the limit leaves above the peak.
    """
    tight = 1 - CAREFUL_SHARE
    if resident_bytes() > max(CAREFUL_SHARE * peak_bytes, min(peak_bytes, limit_bytes - tight * peak_bytes)):
        return_free_memory()


def keep_malloc_small() -> None:
    """One arena, and only the largest blocks returned at once. Call before threads start; glibc only."""
    heap.use_one_arena()
    heap.set_option(heap.M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
    heap.set_option(heap.M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES)


def bound_kernel_caches() -> None:
    """Limit how many kernels oneDNN keeps for shapes it has met, each with its buffers. Call before torch is imported.

    With its defaults of 1024 a worker in bf16 grew by 16 MB a step. Ten per cent of speed buys a memory that can be
    planned (batches.LENGTH_STEP is the other half).
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def keep_fallbacks_quiet() -> None:
    """Leave out a warning of torch on ARM cores without bf16: oneDNN's product failed, and BLAS computes it instead. It
    comes with a C++ trace of dozens of lines, which reads like a crash and is none."""
    warnings.filterwarnings("ignore", message="mkldnn_(matmul|gemm) failed, switching to", category=UserWarning)


def prepare_for_training() -> None:
    """All that must be told to malloc, oneDNN and Python's warnings before torch is imported."""
    keep_malloc_small()
    bound_kernel_caches()
    keep_fallbacks_quiet()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch raises a RuntimeError for it."""
    text = str(error)
    return isinstance(error, MemoryError) or any(part in text for part in _OUT_OF_MEMORY_TEXTS)


def die_with_parent(parent_pid: int) -> None:
    """Get SIGKILL when the process that started this one ends. Exits at once if it has ended already."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit(0)


def offer_to_oom_killer() -> None:
    """Be the one that is killed when memory runs out. Raising one's own score needs no rights."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:
        return  # no Linux, or no /proc: nothing is lost
