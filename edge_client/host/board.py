"""A board's resources: memory that a client may use, processors, and which arithmetic is fast on them.

Everything is read from /proc and /sys below `root`, so that tests can lay out a board of their own.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from braid_common.units import LARGEST_SIZE_BYTES, show_size
from edge_client.errors import ConfigError
from edge_client.host.cgroups import cgroup_folders
from edge_client.host.processors import usable_processors
from edge_client.host.system_files import read_text
from edge_client.jobs.messages import Device

SYSTEM_RESERVE_BYTES = 32 << 20
"""Left alone when the budget comes from MemAvailable: the kernel needs some of it as soon as a program allocates."""

SHOWN_OTHERS_BYTES = 1 << 20
"""Less than this is told to nobody: the shell that started the client."""

MIN_MEMORY_BYTES = 64 << 20
"""Less than this, typed as `--memory`, is a forgotten unit: the interpreter with torch alone needs twice as much."""

# CPU flags that mean bf16 multiply-accumulate in hardware; without them bf16 is emulated and slower than fp32. Only a
# first guess: where torch is installed, edge_client/host/matmul_speed.py measures.
_BF16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


@dataclass(frozen=True, slots=True)
class Board:
    """A board as the planner sees it.

    Attributes:
        memory_bytes: what the client and its worker may use together.
        memory_source: sentence that says where that number comes from.
        cpu_count: processors this process may run on, cgroup quota included, at least 1.
        machine: processor architecture, e.g. "aarch64".
        bf16_fast: whether bf16 products are the faster ones; guessed from the processor's flags until measured.
        model: the board's own name (Jetson, Raspberry Pi), "" where it tells none.
        device: where training runs; the processor until measured.
    """

    memory_bytes: int
    memory_source: str
    cpu_count: int
    machine: str
    bf16_fast: bool
    model: str = ""
    device: Device = "cpu"


def probe_board(memory_override_bytes: int | None = None, root: Path = Path("/")) -> Board:
    """Look at the board. `memory_override_bytes` (from `--memory`) replaces every limit that is found.

    Raises ConfigError where no memory limit can be read and none was given, or the one given is absurdly small.
    """
    memory_bytes, source = _memory(memory_override_bytes, root)
    return Board(
        memory_bytes=memory_bytes,
        memory_source=source,
        cpu_count=usable_processors(root),
        machine=platform.machine(),
        bf16_fast=not _BF16_FLAGS.isdisjoint(_cpu_flags(root)),
        model=read_text(root / "proc/device-tree/model").rstrip("\0\n "),
    )


def _memory(override_bytes: int | None, root: Path) -> tuple[int, str]:
    if override_bytes is not None:
        if override_bytes < MIN_MEMORY_BYTES:
            raise ConfigError(
                f"--memory {override_bytes} bytes is less than the smallest client needs",
                "give it with a unit, such as --memory 500MiB",
            )
        return override_bytes, "given by --memory"
    limits = [*_cgroup_limits(root), *_ram(root)]
    if not limits:
        raise ConfigError("the board does not tell how much memory it has", "give it, such as --memory 500MiB")
    return min(limits)


def _ram(root: Path) -> list[tuple[int, str]]:
    """MemAvailable less a reserve, or half of MemTotal on kernels (before 3.14) that do not estimate it."""
    fields_kib = _numbers(read_text(root / "proc/meminfo"))
    if "MemAvailable" in fields_kib:
        available_bytes = (fields_kib["MemAvailable"] << 10) - SYSTEM_RESERVE_BYTES
        return [(max(0, available_bytes), "memory available now (/proc/meminfo)")]
    if "MemTotal" in fields_kib:
        return [((fields_kib["MemTotal"] << 10) // 2, "half of the memory installed (/proc/meminfo)")]
    return []


def _cgroup_limits(root: Path) -> list[tuple[int, str]]:
    """Memory that each control group above this process, v1 and v2, leaves it, with where the limit was found."""
    limits = []
    for folder, v2 in cgroup_folders(root, "memory"):
        name = "memory.max" if v2 else "memory.limit_in_bytes"
        text = read_text(folder / name).strip()
        if text.isdigit() and int(text) < LARGEST_SIZE_BYTES:  # cgroup v1 writes "no limit" as a number near 2^63
            others_bytes = _others_bytes(folder, v2, root)
            source = f"control group limit (/{(folder / name).relative_to(root)})"
            if others_bytes >= SHOWN_OTHERS_BYTES:
                source += f" less {show_size(others_bytes)} that others in the group hold"
            limits.append((max(0, int(text) - others_bytes), source))
    return limits


def _others_bytes(group: Path, v2: bool, root: Path) -> int:
    """Memory that other processes in a control group hold, and the kernel cannot take back without a swap.

    Call while no worker runs: it would count as another.
    """
    fields = _numbers(read_text(group / "memory.stat"))
    names = ("anon", "shmem") if v2 else ("total_rss", "total_shmem")
    own_bytes = _numbers(read_text(root / "proc/self/status")).get("RssAnon", 0) << 10
    return max(0, sum(fields.get(name, 0) for name in names) - own_bytes)


def _numbers(text: str) -> dict[str, int]:
    """The first number of every line, by the line's first word: files such as meminfo and memory.stat."""
    words = (line.replace(":", " ").split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _cpu_flags(root: Path) -> frozenset[str]:
    """Flags of the first processor; x86 calls the line "flags", arm64 "Features"."""
    for line in read_text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(value.split())
    return frozenset()
