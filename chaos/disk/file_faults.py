"""Files that fail under a process that knows nothing of it: a library before the C library, told what to do by a file.

A FUSE or device-mapper layer would need rights that neither a build machine nor a container gives; LD_PRELOAD needs a C
compiler. Every call of Python and of SQLite goes through the C library's functions, so it sees them all
(`tests/chaos/disk` asserts that of each). Pages that a program maps are not seen: SQLite's `-shm` is one, and holds
nothing that must outlive the process.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

Call = Literal[
    "open", "write", "pwrite", "fsync", "fdatasync", "rename", "mkdir", "unlink", "ftruncate", "read", "pread"
]
"""A call that can fail. Opening counts where it is for writing, a rename by where it leads."""

CALLS: tuple[Call, ...] = get_args(Call)
READING: tuple[Call, ...] = ("read", "pread")
CHANGING: tuple[Call, ...] = tuple(call for call in CALLS if call not in READING)

Error = Literal["ENOSPC", "EIO", "EROFS"]
ERRORS: tuple[Error, ...] = get_args(Error)

FAILING: Mapping[Error, tuple[Call, ...]] = {
    "ENOSPC": tuple(call for call in CHANGING if call not in ("unlink", "ftruncate")),
    "EIO": CALLS,
    "EROFS": CHANGING,
}
"""The calls that fail with each error: a full disk still removes files, cuts them short and opens those that are there,
and a read-only one still reads them."""

SOURCE = Path(__file__).with_name("faulty_files.c")

_PATH_PART = 64
_CONTROL = struct.Struct(f"<{8 + 2 * len(CALLS)}Q{_PATH_PART}s{_PATH_PART}s")  # struct control in faulty_files.c
_ERROR, _ERROR_CALLS, _CHANCE, _ERRORS_LEFT, _SEED, _DRAWS, _KILL_CALLS, _KILL_AFTER, _FAILED = range(9)
_KILLED = _FAILED + len(CALLS)
_ERROR_PATH = 8 * (_KILLED + len(CALLS))
_KILL_PATH = _ERROR_PATH + _PATH_PART
_WHOLE = 1 << 32  # a chance of 1
MANY = 1 << 32
"""More errors than any process makes."""


def find_compiler() -> str | None:
    """The C compiler's path; None where there is none, and so no faults."""
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")


def build_library(folder: Path) -> Path:
    """Compile the library into a folder, once; its path. Raises OSError, and CalledProcessError with what was said."""
    library = folder / "faulty_files.so"
    if not library.exists():
        compiler = find_compiler()
        if compiler is None:
            raise FileNotFoundError("there is no C compiler (cc, gcc or clang), and so no faults of files")
        flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE")
        subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE), "-ldl"], check=True, capture_output=True)
    return library


class FileFaults:
    """The faults of the files below one folder, for the processes that are started with `environment`.

    Args:
        library: as `build_library` made it.
        folder: whose files are concerned.
        control: where the processes are told what fails, and tell what did; made anew.
    """

    def __init__(self, library: Path, folder: Path, control: Path) -> None:
        self._library, self._folder, self._control = library, folder.resolve(), control.resolve()
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _CONTROL.size)
        self._by_error: Counter[tuple[Error, Call]] = Counter()
        self._error: Error | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables under which a process has these faults, and all that it starts."""
        return {
            "LD_PRELOAD": str(self._library),
            "BRAID_CHAOS_FOLDER": str(self._folder),
            "BRAID_CHAOS_CONTROL": str(self._control),
        }

    def fail(
        self,
        error: Error,
        *,
        calls: Iterable[Call] | None = None,
        path: str = "",
        chance: float = 1.0,
        times: int = MANY,
        seed: int = 0,
    ) -> None:
        """Let calls fail from now on.

        Args:
            error: which they fail with.
            calls: which do; all that `error` makes fail, where it is None.
            path: a part that their path must have.
            chance: of each such call, drawn by `seed`.
            times: how many may fail.
            seed: of the draws.
        """
        self.heal()
        self._error = error
        self._write_text(_ERROR_PATH, path)
        self._write(_ERROR_CALLS, _bits(FAILING[error] if calls is None else calls))
        self._write(_CHANCE, int(chance * _WHOLE))
        self._write(_ERRORS_LEFT, times)
        self._write(_SEED, seed)
        self._write(_DRAWS, 0)
        self._write(_ERROR, getattr(errno, error))  # last: from here on it happens

    def heal(self) -> None:
        """Let no call fail any more."""
        self._write(_ERROR, 0)
        if self._error is not None:
            for i, call in enumerate(CALLS):
                self._by_error[self._error, call] += self._read(_FAILED + i)
                self._write(_FAILED + i, 0)
        self._error = None

    def kill(self, *, calls: Iterable[Call] = CHANGING, path: str = "", at: int = 1) -> None:
        """SIGKILL the process at the `at`-th call of these from now on, before it is made; a write is half made.

        Whichever process makes that call is killed, and only that one.
        """
        self.spare()
        self._write_text(_KILL_PATH, path)
        self._write(_KILL_CALLS, _bits(calls))
        self._write(_KILL_AFTER, at)

    def spare(self) -> None:
        """Kill nobody any more."""
        self._write(_KILL_AFTER, 0)

    @property
    def failed(self) -> Counter[tuple[Error, Call]]:
        """How many calls have failed so far, by error and call."""
        counts = Counter(self._by_error)
        if self._error is not None:
            counts.update({(self._error, call): self._read(_FAILED + i) for i, call in enumerate(CALLS)})
        return +counts

    @property
    def killed(self) -> Counter[Call]:
        """How many calls have killed a process so far."""
        return +Counter({call: self._read(_KILLED + i) for i, call in enumerate(CALLS)})

    def _read(self, place: int) -> int:
        return int.from_bytes(self._memory[8 * place : 8 * place + 8], "little")

    def _write(self, place: int, number: int) -> None:
        self._memory[8 * place : 8 * place + 8] = number.to_bytes(8, "little")

    def _write_text(self, start: int, text: str) -> None:
        self._memory[start : start + _PATH_PART] = text.encode().ljust(_PATH_PART, b"\0")


def _bits(calls: Iterable[Call]) -> int:
    return sum(1 << CALLS.index(call) for call in set(calls))
