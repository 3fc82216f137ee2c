"""Changes to bytes, and to values of msgpack and JSON. Equal seeds give equal changes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

_HEADS = bytes([0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE1), 0xFF])
"""First bytes of msgpack items that announce length, nothing, or what the protocol has not; and the ends of ranges."""

_NUMBERS = (0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1.5, 1e301, 5e-324)
_NOT_FINITE = (math.nan, math.inf, -math.inf)
_TEXTS = ("", "x", "\x00", "\x9b", "x" * 201, "0" * 64)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True),
    *_NUMBERS,
    *_NOT_FINITE,
    *_TEXTS,
    *(b"", b"\xff" * 8, [], {}, [[]], {"": {}}),
)
"""Values at the ends of ranges, and of types that a field has not."""


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """One to three random edits: flip, overwrite, cut, repeat, insert, splice with one of `others`."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(changed) + 1)
        stop = min(len(changed), start + rng.choice((1, 1, 2, 4, 9, 40)))
        match rng.randrange(7):
            case 0:
                changed[start:stop] = bytes(byte ^ (1 << rng.randrange(8)) for byte in changed[start:stop])
            case 1:
                changed[start:stop] = bytes([rng.choice(_HEADS)])
            case 2:
                del changed[start:stop]
            case 3:
                changed[start:start] = changed[start:stop]
            case 4:
                changed[start:start] = rng.randbytes(rng.choice((1, 2, 5, 9)))
            case 5:
                changed[start:stop] = bytes([rng.choice(_HEADS)]) + rng.choice((b"\xff" * 4, b"\x00" * 4, b"\x7f\xff"))
            case _:
                other = rng.choice(others)
                changed[start:] = other[rng.randrange(len(other)) :] if other else b""
    return bytes(changed)


def mutate_value(plain: Any, rng: random.Random) -> Any:
    """A copy of a message's plain form with one value replaced, one key dropped, added or renamed, somewhere inside."""
    if isinstance(plain, list) and plain and rng.random() < 0.8:
        place = rng.randrange(len(plain))
        return [*plain[:place], mutate_value(plain[place], rng), *plain[place + rng.choice((0, 1, 1, 1)) :]]
    if isinstance(plain, dict) and plain and rng.random() < 0.9:
        key = rng.choice(list(plain))
        match rng.randrange(12):
            case 0:
                return {k: v for k, v in plain.items() if k != key}
            case 1:
                return {**plain, rng.choice(("", "extra", key + " ", key.upper())): plain[key]}
            case _:
                return {**plain, key: mutate_value(plain[key], rng)}
    if isinstance(plain, bytes) and rng.random() < 0.8:
        return _overwritten(plain, rng) if rng.random() < 0.5 else mutate_bytes(plain, rng, [b"\x00\x80\x7f\xff"])
    if isinstance(plain, int) and not isinstance(plain, bool) and rng.random() < 0.5:
        return plain + rng.choice((-1, 1, 2))
    return rng.choice(ODD_VALUES)


def _overwritten(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four of them changed: a tensor of other values, but of its shape."""
    changed = bytearray(data)
    for _ in range(min(len(data), rng.randint(1, 4))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def mutate_msgpack(data: bytes, rng: random.Random) -> bytes:
    """A message with another value; other bytes are edited as such."""
    try:
        plain = msgpack.unpackb(data, strict_map_key=False)
        return bytes(msgpack.packb(mutate_value(plain, rng)))
    except (ValueError, TypeError, OverflowError, AttributeError, RecursionError):  # no msgpack, or keys that are none
        return mutate_bytes(data, rng, [data])


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with another value; other bytes are edited as such."""
    try:
        return json.dumps(mutate_value(json.loads(data), rng)).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):  # no JSON, or bytes as a value
        return mutate_bytes(data, rng, [data])


def behind_first_line(mutate: Callable[[bytes, random.Random], bytes], heads: Sequence[bytes]) -> Any:
    """Inputs whose first line says what the rest is: the rest is changed, now and then the line for one of `heads`."""

    def changed(data: bytes, rng: random.Random) -> bytes:
        head, _, body = data.partition(b"\n")
        if rng.random() < 0.05:
            return rng.choice(heads) + b"\n" + body
        return head + b"\n" + mutate(body, rng)

    return changed
