"""The heap of the C library: how many there are, and what is given back of them to the system."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


def give_back() -> None:
    """Give back what the C library keeps of freed memory; nothing where it has no such call (musl, macOS).

    glibc keeps it for later: after the merge of 50 boards of FLAN-T5-base that is 450 MiB, until the next merge.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def use_one_arena() -> None:
    """Have all threads share one heap, from now on; nothing where the C library has no such call. Call it before there
    are threads.

    glibc gives every thread a heap of its own, of which much stays: a server of 50 boards of FLAN-T5-base kept 80 MiB
    more after a round. Threads that hold Python's lock do not wait for each other's heap.
    """
    set_option(M_ARENA_MAX, 1)


def set_option(option: int, value: int) -> None:
    """Set one of malloc's options, M_…; nothing where the C library has no such call."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(option, value)
