"""The kernel's table of foreign programs (binfmt_misc), in which QEMU is entered for arm64 as long as it is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arm64.shell import NotPossibleError, run

TABLE = Path("/proc/sys/fs/binfmt_misc")
NAME = "braid-aarch64"

PROGRAM = "qemu-aarch64-static"
"""QEMU in one file without libraries, which works inside a root that has none for this machine."""

MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
"""How files begin that are programs or libraries for arm64: QEMU's own numbers (scripts/qemu-binfmt-conf.sh)."""

FLAGS = b"POCF"
"""P: argv[0] stays; O, C: the program's rights stay; F: QEMU is opened now, so that no root needs a copy of it."""


def entry(interpreter: str) -> bytes:
    """The line that enters QEMU in the table."""
    return b":".join([b"", NAME.encode(), b"M", b"", MAGIC, MASK, interpreter.encode(), FLAGS])


@contextmanager
def foreign_programs() -> Iterator[None]:
    """Programs for arm64 start as others do, everywhere on this machine, within the block.

    An entry of somebody else is used and stays: with F, as Debian's package qemu-user-static makes it. Raises
    NotPossibleError where the kernel has no such table, or QEMU is not installed.
    """
    if not (TABLE / "register").exists():
        run(["mount", "-t", "binfmt_misc", "none", str(TABLE)], why="this kernel must have binfmt_misc")
    if any(is_for_every_root(path) for path in TABLE.iterdir()):
        yield
        return
    interpreter = shutil.which(PROGRAM)
    if interpreter is None:
        raise NotPossibleError(f"there is no {PROGRAM}", "apt-get install qemu-user-static")
    (TABLE / "register").write_bytes(entry(os.path.realpath(interpreter)))
    try:
        yield
    finally:
        (TABLE / NAME).write_bytes(b"-1")


def is_for_every_root(path: Path) -> bool:
    """Whether an entry of the table starts arm64's programs inside any root."""
    if path.name in ("register", "status"):
        return False
    lines = path.read_text().splitlines()
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
    return lines[0] == "enabled" and "F" in flags and any("0200b700" in line for line in lines if "magic" in line)
