"""Whatever bytes arrive: a message of the type asked for, or WireError. Nothing else, ever.

A message that does decode must also encode, and decode again to the same value.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

import wire.messages as m
from wire.codec import WireError, decode, encode
from wire.fields import Message
from wire.tensors import unpack

Golden = dict[str, tuple[type[Message], bytes]]

# One byte each: heads that announce length, nothing, or what the protocol has not; and the ends of ranges.
_HEADS = bytes([0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE1), 0xFF])
_ODD_VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64 - 1, -(2**63), 0.0, -0.0, 1.5, 1e301, 5e-324),
    *(
        math.nan,
        math.inf,
        -math.inf,
        "",
        "x",
        "\x00",
        "\x9b",
        "x" * 201,
        "0" * 64,
        b"",
        b"\xff" * 8,
        [],
        {},
        [[]],
        {"": {}},
    ),
]


def outcome(data: bytes, kind: type[Message]) -> str:
    """ "decoded" or "refused". Anything else that is raised fails the test."""
    try:
        message = decode(data, kind)
    except WireError as error:
        assert str(error)
        return "refused"
    assert type(message) is kind
    assert decode(encode(message), kind) == message
    if isinstance(message, m.Tensor):
        try:
            assert np.isfinite(unpack(message)).all()
        except WireError as error:
            assert str(error)
    return "decoded"


def test_cut_at_every_byte(golden: Golden) -> None:
    """No prefix of a message is a message."""
    for kind, data in golden.values():
        assert {outcome(data[:end], kind) for end in range(len(data))} == {"refused"}


def test_trailing_bytes(golden: Golden) -> None:
    """A message followed by any single byte, or by itself, is refused."""
    for kind, data in golden.values():
        followers = [bytes([byte]) for byte in range(256)] + [data]
        assert {outcome(data + more, kind) for more in followers} == {"refused"}


@pytest.mark.slow
def test_every_single_bit_flip(golden: Golden) -> None:
    """Each bit of each message flipped: some flips change a number and decode, the rest are refused."""
    seen: Counter[str] = Counter()
    for kind, data in golden.values():
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            seen[outcome(bytes(flipped), kind)] += 1

    assert sum(seen.values()) == 8 * sum(len(data) for _, data in golden.values())
    assert seen["decoded"] > 1000 and seen["refused"] > 1000


def test_one_message_is_not_another(golden: Golden) -> None:
    """Bytes of one type read as another are refused, or a message of the type asked for where the fields agree."""
    seen = Counter(outcome(data, kind) for kind, _ in golden.values() for _, data in golden.values())

    assert seen["decoded"] >= len(golden) and seen["refused"] > seen["decoded"]


def mutate_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to three random edits: flip, overwrite, cut, repeat, insert, splice."""
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
                changed[start:] = other[rng.randrange(len(other)) :]
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
    if isinstance(plain, bytes) and rng.random() < 0.7:
        return mutate_bytes(plain, rng, [b"\x00\x80\x7f\xff"])
    return rng.choice(_ODD_VALUES)


def mutants(golden: Golden, count: int, seed: int) -> Iterator[tuple[type[Message], bytes]]:
    """`count` mutated messages, half of them edited as bytes and half as values. The same ones for the same seed."""
    rng = random.Random(seed)
    frozen = list(golden.values())
    everything = [data for _, data in frozen]
    for i in range(count):
        kind, data = rng.choice(frozen)
        if i % 2:
            yield kind, mutate_bytes(data, rng, everything)
        else:
            yield kind, msgpack.packb(mutate_value(msgpack.unpackb(data), rng))


def fuzz(golden: Golden, count: int, seed: int) -> Counter[str]:
    return Counter(outcome(data, kind) for kind, data in mutants(golden, count, seed))


def test_three_thousand_mutants(golden: Golden) -> None:
    """The short form of the fuzz, for every run of the fast tests."""
    seen = fuzz(golden, 3_000, seed=1)

    assert seen["decoded"] + seen["refused"] == 3_000
    assert seen["decoded"] > 100 and seen["refused"] > 1_000


@pytest.mark.slow
def test_two_hundred_thousand_mutants(golden: Golden) -> None:
    """200,000 mutants: every one decodes to the type asked for or is refused with WireError, and both happen often."""
    seen = fuzz(golden, 200_000, seed=2)

    assert seen["decoded"] + seen["refused"] == 200_000
    assert seen["decoded"] > 5_000 and seen["refused"] > 100_000
    print(f"decoded {seen['decoded']}, refused {seen['refused']}, other 0")
