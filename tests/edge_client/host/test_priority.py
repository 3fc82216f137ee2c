"""The low priority of a process, seen from outside, as the kernel tells it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_client.host.priority import yield_to_others

IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
IDLE = 3


@pytest.fixture
def other() -> Iterator[int]:
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


def io_class(pid: int) -> int:
    """The I/O scheduling class of a process."""
    return int(ctypes.CDLL(None).syscall(IOPRIO_GET[platform.machine()], 1, pid)) >> 13


@pytest.mark.skipif(platform.machine() not in IOPRIO_GET, reason="the call's number here is not known")
def test_a_process_makes_way_for_processors_and_disk(other: int) -> None:
    """Nicer than this process by as much as it takes, and idle for the disk."""
    wanted = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 3)

    yield_to_others(other, wanted)

    assert os.getpriority(os.PRIO_PROCESS, other) == wanted
    assert io_class(other) == IDLE


@pytest.mark.skipif(platform.machine() not in IOPRIO_GET, reason="the call's number here is not known")
def test_zero_leaves_a_process_as_it_is(other: int) -> None:
    before = os.getpriority(os.PRIO_PROCESS, other), io_class(other)

    yield_to_others(other, 0)

    assert (os.getpriority(os.PRIO_PROCESS, other), io_class(other)) == before


def test_a_process_that_is_nicer_stays_so(other: int) -> None:
    """The unit, or a person, made it so."""
    os.setpriority(os.PRIO_PROCESS, other, 19)

    yield_to_others(other, 5)

    assert os.getpriority(os.PRIO_PROCESS, other) == 19


def test_a_process_that_is_gone_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    yield_to_others(process.pid, 5)
