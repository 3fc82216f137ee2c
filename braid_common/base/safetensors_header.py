"""The header of a safetensors file: which tensors it holds and where they lie, found without reading one of them.

The layout (https://github.com/huggingface/safetensors#format): 8 bytes with the length of a JSON object, little-endian;
the object; then the tensors' bytes, which the object places without gaps and overlaps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta

from braid_common.base.files import BaseFilesError, require_content, unreadable

LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header, little-endian."""

MAX_HEADER_BYTES = 16 << 20
"""Largest header that is read. That of a FLAN-T5-xxl in one file would have 60 kB."""

DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
        **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
        **dict.fromkeys(("I32", "U32", "F32"), 4),
        **dict.fromkeys(("I64", "U64", "F64"), 8),
    }
)
"""Bytes of a value by safetensors' name for its type."""

_METADATA = "__metadata__"
_Whole = Annotated[int, Meta(ge=0)]


class _Place(msgspec.Struct):
    """A tensor in the JSON header; its offsets count from the header's end."""

    dtype: str
    shape: list[_Whole]
    data_offsets: tuple[_Whole, _Whole]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's place in a file: its bytes begin at `offset_bytes`. `dtype` is safetensors' name for its type."""

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


def read_header(path: Path) -> tuple[StoredTensor, ...]:
    """Every tensor of one file, in the order in which they lie there.

    Raises BaseFilesError where the file is missing, a Git LFS pointer, shorter or longer than its header says, or
    where the header is damaged. No tensor is read.
    """
    try:
        has_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(LENGTH_BYTES)
            header_bytes = int.from_bytes(start, "little")
            text = file.read(min(header_bytes, MAX_HEADER_BYTES + 1))
    except FileNotFoundError as error:
        raise BaseFilesError(f"{path} is missing; copy or download the base again") from error
    except OSError as error:
        raise unreadable(path, error) from error
    require_content(path, start + text)
    if len(start) < LENGTH_BYTES or len(text) < min(header_bytes, MAX_HEADER_BYTES + 1):
        raise _damaged(path, f"it has {has_bytes} bytes, and its header is longer")
    if header_bytes > MAX_HEADER_BYTES:
        raise _damaged(path, f"its header has {header_bytes} bytes, at most {MAX_HEADER_BYTES} are read")
    data_start = LENGTH_BYTES + header_bytes
    places = _places(path, text)
    end = max((place.data_offsets[1] for place in places.values()), default=0)
    if has_bytes != data_start + end:
        raise _damaged(path, f"it has {has_bytes} of {data_start + end} bytes")
    return tuple(
        StoredTensor(name, path, place.dtype, tuple(place.shape), data_start + place.data_offsets[0])
        for name, place in places.items()
    )


def require_whole(paths: Sequence[Path]) -> None:
    """Raise BaseFilesError where one of these safetensors files is not what its own header says."""
    for path in paths:
        read_header(path)


def _places(path: Path, text: bytes) -> dict[str, _Place]:
    """The tensors by name, ordered by their place; each as large as its shape, the next right behind it."""
    try:
        parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        parts.pop(_METADATA, None)
        places = {name: msgspec.json.decode(part, type=_Place) for name, part in parts.items()}
    except (ValueError, RecursionError) as error:  # msgspec's errors, and UnicodeDecodeError
        raise _damaged(path, f"its header cannot be read: {error}") from error
    ordered = dict(sorted(places.items(), key=lambda item: item[1].data_offsets))
    if reason := _misplaced(ordered):
        raise _damaged(path, reason)
    return ordered


def _misplaced(places: Mapping[str, _Place]) -> str:
    """The fault in the places of tensors that should follow each other from 0 on; "" where there is none."""
    end = 0
    for name, place in places.items():
        if place.dtype not in DTYPE_BYTES:
            return f"{name} has the unknown type {place.dtype[:20]!r}"
        first, last = place.data_offsets
        if first != end or last - first != prod(place.shape) * DTYPE_BYTES[place.dtype]:
            return f"the bytes of {name} are not where its shape needs them"
        end = last
    return ""


def _damaged(path: Path, reason: str) -> BaseFilesError:
    return BaseFilesError(f"{path} is damaged or truncated: {reason}; copy or download the base again")
