"""A walk over msgpack bytes that builds nothing, so that no message can claim memory that it did not send.

A msgpack decoder allocates an array of the length that five bytes claim, at every nesting level, before it finds that
the items are missing: a 1 MB message can so ask for gigabytes. Here every claim is held against the bytes that are left
and against wire.limits first. Strings' UTF-8 is left to the decoder.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from wire.errors import WireError
from wire.limits import (
    MAX_ARRAY_ITEMS,
    MAX_DEPTH,
    MAX_ITEMS,
    MAX_MAP_ENTRIES,
    MAX_TENSOR_BYTES,
    MAX_TEXT_BYTES,
)

Family = Literal["scalar", "str", "bin", "array", "map", "extension", "reserved"]


class _Head(NamedTuple):
    """Meaning of an item's first byte. `inline` is the length where no length bytes follow it."""

    family: Family
    length_bytes: int
    inline: int


def _heads() -> tuple[_Head, ...]:
    """One entry per first byte, from the format table of the msgpack specification."""
    heads = [_Head("reserved", 0, 0)] * 256
    for code in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3):
        heads[code] = _Head("scalar", 0, 0)  # small integers, nil, false, true
    for code, size in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        heads[code] = _Head("scalar", 0, size)  # floats and unsigned integers
    for code, size in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        heads[code] = _Head("scalar", 0, size)
    for code in (*range(0xC7, 0xCA), *range(0xD4, 0xD9)):
        heads[code] = _Head("extension", 0, 0)
    short: tuple[tuple[int, int, Family], ...] = ((0x80, 16, "map"), (0x90, 16, "array"), (0xA0, 32, "str"))
    for first, count, family in short:
        for length in range(count):
            heads[first + length] = _Head(family, 0, length)
    long: tuple[tuple[int, tuple[int, ...], Family], ...] = (
        (0xC4, (1, 2, 4), "bin"),
        (0xD9, (1, 2, 4), "str"),
        (0xDC, (2, 4), "array"),
        (0xDE, (2, 4), "map"),
    )
    for first, sizes, family in long:
        for i, size in enumerate(sizes):
            heads[first + i] = _Head(family, size, 0)
    return tuple(heads)


_HEADS = _heads()
_MOST: dict[Family, int] = {
    "scalar": 8,
    "str": MAX_TEXT_BYTES,
    "bin": MAX_TENSOR_BYTES,
    "array": MAX_ARRAY_ITEMS,
    "map": MAX_MAP_ENTRIES,
}
_FLOAT64 = 0xCB
_FLOAT64_BYTES = 9


def check_structure(data: memoryview) -> None:
    """Raise WireError unless `data` (bytes, format "B") is exactly one msgpack item within the limits.

    Map keys must be strings, extension types are refused, and nothing may follow the item. Takes no memory to speak of.
    """
    end, offset, items = len(data), 0, 0
    left, in_map = 1, False  # items still to come at this depth, two for each entry of a map
    outer: list[tuple[int, bool]] = []
    while True:
        while left == 0:
            if not outer:
                if offset != end:
                    raise WireError(f"{end - offset} bytes follow the message")
                return
            left, in_map = outer.pop()
        if offset >= end:
            raise WireError(f"message ends early, at byte {offset}")
        is_key = in_map and left % 2 == 0
        left -= 1
        items += 1
        head = _HEADS[data[offset]]
        length = _length(data, offset, head)
        if is_key and head.family != "str":
            raise WireError(f"map key at byte {offset} is no string")
        offset += 1 + head.length_bytes
        if head.family in ("array", "map"):
            if len(outer) >= MAX_DEPTH:
                raise WireError(f"nested deeper than {MAX_DEPTH} levels at byte {offset}")
            outer.append((left, in_map))
            in_map = head.family == "map"
            left = 2 * length if in_map else length
            if left and not in_map and _all_float64(data, offset, length):
                offset, items, left = offset + length * _FLOAT64_BYTES, items + length, 0
        else:
            offset += length
        if items > MAX_ITEMS:
            raise WireError(f"more than {MAX_ITEMS} items")


def _length(data: memoryview, offset: int, head: _Head) -> int:
    """Bytes of a scalar, string or bin after its head, or items of an array or map; checked against what is left."""
    if head.family == "extension" or head.family == "reserved":
        raise WireError(f"{head.family} type 0x{data[offset]:02x} at byte {offset} is not part of the protocol")
    start = offset + 1 + head.length_bytes
    if start > len(data):
        raise WireError(f"message ends early, in the length at byte {offset}")
    length = int.from_bytes(data[offset + 1 : start], "big") if head.length_bytes else head.inline
    if length > _MOST[head.family]:
        raise WireError(f"{head.family} of length {length} at byte {offset}, at most {_MOST[head.family]} is allowed")
    needed = 2 * length if head.family == "map" else length  # an item takes at least one byte
    if needed > len(data) - start:
        raise WireError(f"{head.family} at byte {offset} claims {length}, but only {len(data) - start} bytes follow")
    return length


def _all_float64(data: memoryview, offset: int, count: int) -> bool:
    """Whether `count` 64-bit floats, and nothing else, start at `offset`: so looks σ², the longest list."""
    stop = offset + count * _FLOAT64_BYTES
    if data[offset] != _FLOAT64 or stop > len(data):
        return False
    return bytes(data[offset:stop:_FLOAT64_BYTES]).count(_FLOAT64) == count
