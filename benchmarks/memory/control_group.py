"""A memory control group of this machine, v1 or v2, in which processes can be run: a board of a given size.

    with control_group("board", 450 << 20) as group:
        subprocess.run(group.command("edge-client", "join", …))

Making one takes root, or a group that was handed over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

V1_ROOT = Path("/sys/fs/cgroup/memory")
V2_ROOT = Path("/sys/fs/cgroup")

EMPTIES_S = 5.0
"""A group cannot be removed while the kernel still clears up after its last process."""


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """`folder` is the group's, `v2` its kind."""

    folder: Path
    v2: bool

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs `arguments` in this group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *arguments]

    @property
    def oom_kills(self) -> int:
        """How many processes of this group the kernel killed because its limit was reached."""
        return _count(self.folder / ("memory.events" if self.v2 else "memory.oom_control"), "oom_kill")

    @property
    def peak_bytes(self) -> int:
        """The most that was charged to the group, files that the kernel could have dropped included; 0 where an old
        kernel does not say."""
        path = self.folder / ("memory.peak" if self.v2 else "memory.max_usage_in_bytes")
        return int(path.read_text()) if path.exists() else 0

    @property
    def held_bytes(self) -> int:
        """Memory of the group's processes that the kernel cannot drop, now."""
        return _count(self.folder / "memory.stat", "anon" if self.v2 else "total_rss")


def _count(file: Path, name: str) -> int:
    words = (line.split() for line in file.read_text().splitlines())
    return next((int(line[1]) for line in words if line[0] == name), 0)


@contextmanager
def control_group(name: str, limit_bytes: int) -> Iterator[ControlGroup]:
    """A new group whose processes may hold `limit_bytes` together, without swap; gone at the end, when none may be
    left. Raises OSError where no group can be made here."""
    v2 = not (V1_ROOT / "memory.limit_in_bytes").exists()
    folder = (V2_ROOT if v2 else V1_ROOT) / f"{name}-{os.getpid()}"
    if v2:
        (V2_ROOT / "cgroup.subtree_control").write_text("+memory")
    folder.mkdir()
    try:
        (folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(limit_bytes))
        swap, swap_bytes = ("memory.swap.max", 0) if v2 else ("memory.memsw.limit_in_bytes", limit_bytes)
        if (folder / swap).exists():  # a kernel that does not count swap
            (folder / swap).write_text(str(swap_bytes))
        yield ControlGroup(folder, v2)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    until_s = time.monotonic() + EMPTIES_S
    while True:
        try:
            return folder.rmdir()
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
