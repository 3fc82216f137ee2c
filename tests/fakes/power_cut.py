"""A recording of what this process does to a folder, and the folder as a power cut would leave it at any moment of it.

The disk is one that keeps no promise that it has not given. A file's bytes are safe once the file was synced, a name
(new, replaced or removed) once its folder was. Before each operation, and at the end, the folder is one of:

synced    what was synced alone
empty     names as they were, files that were not synced since they were written without a byte
zeros     the same, with zeros in place of bytes, as where the size was written before the content
half      the same, with the first half of what was written

Operations are seen by Python's audit hooks, which every call of open, rename, remove and mkdir passes on its way to
the system; fsync has none, and is replaced while a recording runs. What other processes do is not seen: their files
count as not synced.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VARIANTS = ("synced", "empty", "zeros", "half")

Tree = dict[str, bytes | None]
"""Content by path below the folder; None is a folder."""

_running: list[Recording] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _running and event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"):
        _running[-1].before(event, arguments)


@dataclass(frozen=True)
class Cut:
    """A folder after a power cut.

    Attributes:
        before: the operation that was next.
        variant: one of VARIANTS.
        tree: what is there.
        allowed: by path, the contents that whole-file writes may have left: from the last that was promised on. None is
            no file.
    """

    before: str
    variant: str
    tree: Tree
    allowed: Mapping[str, tuple[bytes | None, ...]]

    @property
    def torn(self) -> list[str]:
        """Paths that hold neither the old nor the new content, or older content than was promised."""
        return [path for path, contents in self.allowed.items() if self.tree.get(path) not in contents]

    def write_to(self, folder: Path) -> Path:
        """Make the folder."""
        folder.mkdir(parents=True)
        for path, content in sorted(self.tree.items()):
            if content is None:
                (folder / path).mkdir(parents=True, exist_ok=True)
            else:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
        return folder

    def __str__(self) -> str:
        return f"{self.variant} before {self.before}"


class Recording:
    """Use as `with`; `cuts` afterwards.

    Args:
        root: the folder, which is there; what lies in it is safe.
        not_whole: ends of the names of files that may be torn, since they are checked when they are read.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, not_whole: tuple[str, ...] = ()) -> None:
        self.root, self._not_whole = root.resolve(), (".part", "lock", *not_whole)
        self._patch = monkeypatch
        self._names: dict[str, dict[str, int]] = {}  # by folder: safe names, and which files they are
        self._bytes: dict[int, bytes] = {}  # safe content by file
        self._ids: dict[int, int] = {}  # the file that has an inode now: the system uses their numbers again
        self._n_files = 0
        self._at_first: dict[str, bytes | None] = {}
        self._written: dict[str, list[bytes | None]] = {}  # all that was renamed to a path
        self._promised: dict[str, int] = {}
        self.cuts: list[Cut] = []
        self.n_lost = 0
        self._seen: set[int] = set()

    def __enter__(self) -> Recording:
        now = list(self._look())
        self._identify(now)
        for path, inode, content in now:
            self._at_first[str(path)] = content
            if content is not None:
                self._bytes[self._ids[inode]] = content
            self._names.setdefault(str(path.parent), {})[path.name] = self._ids.get(inode, 0)
        self._fsync = os.fsync
        self._patch.setattr(os, "fsync", self._sync)
        if not getattr(sys, "_braid_hears", False):
            sys.addaudithook(_hear)
            sys._braid_hears = True  # type: ignore[attr-defined]
        _running.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _running.remove(self)
        self._patch.setattr(os, "fsync", self._fsync)
        self._cut("nothing more")

    def before(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An operation is about to happen."""
        paths = [self._below(argument) for argument in arguments[: 2 if event == "os.rename" else 1]]
        is_write = event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if None in paths or not is_write:
            return
        _running.remove(self)  # what is done to look is not part of it
        try:
            self._cut(f"{event.removeprefix('os.')} {' '.join(map(str, paths))}")
            if event == "os.rename":
                source = self.root / str(paths[0])
                if source.is_file():
                    self._note(str(paths[1]), source.read_bytes())
                    self._note(str(paths[0]), None)
            elif event == "os.remove":
                self._note(str(paths[0]), None)
        finally:
            _running.append(self)

    def _note(self, path: str, content: bytes | None) -> None:
        if content is not None or path in self._written:
            self._written.setdefault(path, [self._at_first.get(path)]).append(content)

    def _sync(self, descriptor: int) -> None:
        path = self._below(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path is not None:
            _running.remove(self)
            self._cut(f"fsync {path}")
            _running.append(self)
        self._fsync(descriptor)
        if path is None:
            return
        found = self.root / path
        if found.is_dir():
            self._names[str(path)] = {entry.name: self._ids.get(entry.stat().st_ino, 0) for entry in found.iterdir()}
            for written, contents in self._written.items():
                if str(Path(written).parent) == str(path):
                    self._promised[written] = len(contents) - 1
        else:
            self._bytes[self._ids[os.fstat(descriptor).st_ino]] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def _below(self, argument: Any) -> Path | None:
        if not isinstance(argument, str | os.PathLike | bytes):
            return None
        path = Path.cwd() / os.fsdecode(argument)
        return path.relative_to(self.root) if path.is_relative_to(self.root) else None

    def _look(self) -> Iterator[tuple[Path, int, bytes | None]]:
        for path in sorted(self.root.rglob("*")):
            try:
                yield path.relative_to(self.root), path.stat().st_ino, None if path.is_dir() else path.read_bytes()
            except FileNotFoundError:  # another process has removed it
                continue

    def _cut(self, label: str) -> None:
        now = list(self._look())
        self._identify(now)
        allowed = {
            path: tuple(contents[self._promised.get(path, 0) :])
            for path, contents in self._written.items()
            if not path.endswith(self._not_whole)
        }
        for variant in VARIANTS:
            tree = self._safe(".") if variant == "synced" else {}
            if variant != "synced":
                for path, inode, content in now:
                    safe = self._bytes.get(self._ids.get(inode, 0), b"")
                    tree[str(path)] = content if content in (None, safe) else _lost(safe, content or b"", variant)
            is_new = hash((frozenset(tree.items()), frozenset(allowed.items()))) not in self._seen
            self._seen.add(hash((frozenset(tree.items()), frozenset(allowed.items()))))
            self.n_lost += tree != {str(path): content for path, _, content in now}
            if is_new:
                self.cuts.append(Cut(label, variant, tree, allowed))

    def _identify(self, now: list[tuple[Path, int, bytes | None]]) -> None:
        files = {inode for _, inode, content in now if content is not None}
        self._ids = {inode: known for inode, known in self._ids.items() if inode in files}
        for inode in sorted(files - self._ids.keys()):
            self._n_files += 1
            self._ids[inode] = self._n_files

    def _safe(self, folder: str) -> Tree:
        tree: Tree = {}
        for name, file in self._names.get(folder, {}).items():
            path = name if folder == "." else f"{folder}/{name}"
            if file == 0:
                tree |= {path: None} | self._safe(path)
            else:
                tree[path] = self._bytes.get(file, b"")
        return tree


def _lost(safe: bytes, content: bytes, variant: str) -> bytes:
    """What is left of content that was written since it was safe."""
    if variant == "empty":
        return safe
    if variant == "zeros":
        return safe + bytes(max(0, len(content) - len(safe)))
    return content[: max(len(safe), len(content) // 2)]
