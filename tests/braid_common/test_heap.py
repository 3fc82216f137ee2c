"""The C library's heap: one for all threads, and what is freed goes back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from braid_common.heap import give_back, use_one_arena

if sys.argv[1] == "one":
    use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
gate = threading.Barrier(8)

def take():
    gate.wait()
    held = [libc.malloc(ctypes.c_size_t(50_000)) for _ in range(200)]
    gate.wait()
    for each in held:
        libc.free(ctypes.c_void_p(each))

threads = [threading.Thread(target=take) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
give_back()
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such calls, and need none")
@pytest.mark.parametrize(("heaps", "fewest", "most"), [("one", 1, 1), ("many", 2, 9)])
def test_threads_share_one_heap(heaps: str, fewest: int, most: int) -> None:
    """Eight threads that take memory at the same time have one heap, where left alone they have several."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, heaps], capture_output=True, text=True, check=True, timeout=60)
    assert fewest <= ran.stdout.count("<heap nr=") <= most, ran.stdout
