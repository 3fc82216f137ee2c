"""The frozen encoder's outputs on disk, each computed once: bounded, checked when read, and never those of other work.

    FOLDER/ORIGIN/XX/REST      one entry; XXREST is its key, ORIGIN the start of its origin's digest, both hexadecimal

A key is a SHA-256 over CACHE_VERSION, the base's digest, weight format, compute dtype, stored dtype and the source's
token ids. Ids are all that tokenisation and text come to, so they stand for both, and equal texts share an entry.

Encoder outputs tell nearly as much as the text that they were made from, so they never leave the board: names are
hashes, folders are 0700 and files 0600.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import tempfile
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from braid_common.atomic_file import sweep_temporaries
from edge_client.errors import disk_errors
from edge_client.jobs.sizes import HEADER_BYTES, entry_bytes
from quantize.int8 import Int8Weight, to_int8

CACHE_VERSION = 1
"""Part of every key. To be raised when the layout of an entry or the encoder's arithmetic changes."""

TOUCH_EVERY_S = 86_400.0
"""An entry's time, which orders evictions, is renewed once a day at most: reading must not wear out an SD card."""

_MAGIC = b"BRAIDENC"
_HEADER = struct.Struct("<8s32s4sIIQ")  # magic, key, stored dtype, tokens, d_model, payload bytes
_CHECKSUM = struct.Struct("<I")

_ORIGIN_DIGITS = 16
_ENTRY = re.compile(rf"[0-9a-f]{{{_ORIGIN_DIGITS}}}/[0-9a-f]{{2}}/[0-9a-f]{{62}}")

Source = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of an encoder's outputs: all that they depend on besides the source. Other origins share nothing."""

    base_digest: str
    format: str
    compute: str
    stored: Literal["bf16", "int8"]

    def digest(self) -> bytes:
        return hashlib.sha256(json.dumps([CACHE_VERSION, *astuple(self)]).encode()).digest()


class EncoderCache:
    """Encoder outputs (tokens, d_model) on disk by source, real tokens only.

    Entries are written beside their place and renamed, without fsync: one that a power cut tore, or bytes that a card
    lost, fail their checksum and are made again, which costs less than syncing each. CRC-32 is enough, as damage is
    expected and attack is not: who can write here can write the client.

    For one process at a time, which the state folder's lock sees to, and one thread.

    Args:
        folder: made if absent.
        origin: what the outputs depend on besides their sources.
        d_model: width of an output.
        limit_bytes: never exceeded by the entries of all origins together.
        now_s: gives seconds since 1970.

    Raises:
        DiskError: the folder cannot be used. `put`, and whatever removes an entry, raise it too.
    """

    def __init__(
        self, folder: Path, origin: Origin, d_model: int, limit_bytes: int, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._stored = origin.stored
        self._d_model = d_model
        self._limit_bytes = limit_bytes
        self._now_s = now_s
        self._keys = hashlib.sha256(origin.digest())
        self._own = origin.digest().hex()[:_ORIGIN_DIGITS]
        self._kept_names: set[str] = set()
        self._kept: dict[str, int] = {}  # sizes of entries that exist and must stay
        self._loose: dict[str, int] = {}  # sizes of all others, the first to be evicted first
        self._kept_bytes = 0
        self._total_bytes = 0
        self._stale: set[str] = set()
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sweep_temporaries(folder)
            self._index()
        self._make_room(0)  # the limit may have been lowered

    @property
    def total_bytes(self) -> int:
        """Size of the entries of all origins."""
        return self._total_bytes

    def missing(self, sources: Sequence[Source]) -> list[Source]:
        """The distinct sources that have no entry of the right size, in the order in which they first appear.

        Nothing is read: a damaged entry counts until `get` finds it.
        """
        return [ids for ids in dict.fromkeys(sources) if self._size(self._name(ids)) != self._entry_bytes(ids)]

    def keep(self, sources: Iterable[Source]) -> None:
        """Never evict the entries of `sources` from now on: a job says once what it will read."""
        names = {self._name(ids) for ids in sources} - self._kept_names
        self._kept_names |= names
        for name in sorted(names & self._loose.keys()):
            self._kept[name] = self._loose.pop(name)
            self._kept_bytes += self._kept[name]
        for name in sorted(names & self._stale):
            with contextlib.suppress(OSError):  # a later eviction may choose worse, no more
                os.utime(self._folder / name)
        self._stale -= names

    def read_ahead(self, sources: Iterable[Source]) -> None:
        """Ask the system to read these entries into its page cache meanwhile; `get` then need not wait for the disk."""
        for ids in sources:
            with contextlib.suppress(OSError), (self._folder / self._name(ids)).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def put(self, ids: Source, hidden: Tensor) -> bool:
        """Write the entry of `ids`: hidden (tokens, d_model) fp32 or bf16, one row per id, at least one.

        bf16 rounds to nearest; int8 has a symmetric scale of max|row|/127 per token. False, and nothing is written,
        where all that is left to evict is too little: the caller then does without.
        """
        if hidden.shape != (len(ids), self._d_model) or not ids:
            raise ValueError(f"hidden states {list(hidden.shape)} for {len(ids)} ids of width {self._d_model}")
        name, size_bytes = self._name(ids), self._entry_bytes(ids)
        self._drop(name)
        if not self._make_room(size_bytes):
            return False
        payload = _payload(hidden, self._stored)
        header = self._header(ids)
        self._write(name, [header, _CHECKSUM.pack(_checksum(header, payload)), *payload])
        self._take_in(name, size_bytes)
        return True

    def get(self, ids: Source, dtype: torch.dtype) -> Tensor | None:
        """Hidden states (tokens, d_model) in `dtype`, fp32 or bf16, in memory of their own.

        None where there is no entry or it is damaged; a damaged one is removed, so that `missing` names it.
        """
        name = self._name(ids)
        data = _read(self._folder / name, self._entry_bytes(ids))
        if data is None or not self._is_whole(data, self._header(ids)):
            self._drop(name)
            return None
        return _hidden(data, (len(ids), self._d_model), self._stored).to(dtype)

    # --- names and sizes -------------------------------------------------------------------------------------------

    def _key(self, ids: Source) -> bytes:
        key = self._keys.copy()
        key.update(array("I", ids))
        return key.digest()

    def _name(self, ids: Source) -> str:
        key = self._key(ids).hex()
        return f"{self._own}/{key[:2]}/{key[2:]}"

    def _entry_bytes(self, ids: Source) -> int:
        return entry_bytes(len(ids), self._d_model, self._stored)

    def _header(self, ids: Source) -> bytes:
        payload_bytes = self._entry_bytes(ids) - HEADER_BYTES
        return _HEADER.pack(_MAGIC, self._key(ids), self._stored.encode(), len(ids), self._d_model, payload_bytes)

    @staticmethod
    def _is_whole(data: bytearray, header: bytes) -> bool:
        """Whether an entry is that of `header`, bit for bit as it was written."""
        view = memoryview(data)
        (checksum,) = _CHECKSUM.unpack_from(data, _HEADER.size)
        return view[: _HEADER.size] == header and checksum == _checksum(header, [view[HEADER_BYTES:]])

    # --- what is there ---------------------------------------------------------------------------------------------

    def _index(self) -> None:
        """Find the entries: those of other origins are the first to go, then the least recently used."""
        found = sorted((name.startswith(self._own), time_s, name, size) for name, time_s, size in self._scan())
        for is_own, time_s, name, size_bytes in found:
            self._take_in(name, size_bytes)
            if is_own and self._now_s() - time_s > TOUCH_EVERY_S:
                self._stale.add(name)

    def _scan(self) -> Iterator[tuple[str, float, int]]:
        """(name, time in s, size in bytes) of every entry; whatever else lies in an entry's folder is removed."""
        for origin in sorted(self._folder.glob("[0-9a-f]" * _ORIGIN_DIGITS)):
            for folder in sorted(origin.glob("[0-9a-f]" * 2)):
                with os.scandir(folder) as entries:
                    for entry in entries:
                        name = f"{origin.name}/{folder.name}/{entry.name}"
                        if _ENTRY.fullmatch(name) and entry.is_file(follow_symlinks=False):
                            status = entry.stat(follow_symlinks=False)
                            yield name, status.st_mtime, status.st_size
                        elif not entry.is_dir(follow_symlinks=False):
                            Path(entry.path).unlink()

    def _size(self, name: str) -> int:
        return self._kept.get(name) or self._loose.get(name, 0)

    def _take_in(self, name: str, size_bytes: int) -> None:
        is_kept = name in self._kept_names
        (self._kept if is_kept else self._loose)[name] = size_bytes
        self._kept_bytes += size_bytes if is_kept else 0
        self._total_bytes += size_bytes

    def _make_room(self, size_bytes: int) -> bool:
        """Evict until `size_bytes` more fit. False, evicting nothing, where they cannot."""
        if self._kept_bytes + size_bytes > self._limit_bytes:
            return False
        while self._total_bytes + size_bytes > self._limit_bytes:
            self._drop(next(iter(self._loose)))
        return True

    def _drop(self, name: str) -> None:
        path = self._folder / name
        with disk_errors(self._folder):
            path.unlink(missing_ok=True)
        kept_bytes = self._kept.pop(name, 0)
        self._kept_bytes -= kept_bytes
        self._total_bytes -= kept_bytes + self._loose.pop(name, 0)
        if not name.startswith(self._own):
            with contextlib.suppress(OSError):  # others are in it
                path.parent.rmdir()
                path.parent.parent.rmdir()

    def _write(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        path = self._folder / name
        with disk_errors(self._folder):
            for folder in (self._folder, path.parent.parent, path.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=".braid-", suffix=".part", dir=self._folder)  # mode 0600
            try:
                with os.fdopen(descriptor, "wb") as file:
                    for part in parts:
                        file.write(part)
                Path(temporary).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    Path(temporary).unlink()
                raise


def _read(path: Path, size_bytes: int) -> bytearray | None:
    """The file's bytes, if it can be read and has just that size."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return None
            data = bytearray(size_bytes)
            return data if file.readinto(data) == size_bytes else None
    except OSError:  # absent, or a sector that the card cannot read any more
        return None


def _checksum(header: bytes, payload: Sequence[memoryview]) -> int:
    checksum = zlib.crc32(header)
    for part in payload:
        checksum = zlib.crc32(part, checksum)
    return checksum


def _payload(hidden: Tensor, stored: str) -> list[memoryview]:
    """int8: scales, then codes; bf16: values."""
    if stored == "int8":
        packed = to_int8(hidden)
        return [_bytes_of(packed.scales), _bytes_of(packed.codes)]
    return [_bytes_of(hidden.to(torch.bfloat16).contiguous())]


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().view(torch.uint8).numpy().data.cast("B")


def _hidden(data: bytearray, shape: tuple[int, int], stored: str) -> Tensor:
    """The reverse of _payload: bf16 shares the memory of `data`, int8 becomes fp32."""
    n_tokens, d_model = shape
    if stored == "int8":
        scales = torch.frombuffer(data, dtype=torch.float32, offset=HEADER_BYTES, count=n_tokens)
        codes = torch.frombuffer(data, dtype=torch.int8, offset=HEADER_BYTES + scales.nbytes)
        return Int8Weight(codes.view(shape), scales).dense(torch.float32)
    return torch.frombuffer(data, dtype=torch.bfloat16, offset=HEADER_BYTES).view(n_tokens, d_model)
