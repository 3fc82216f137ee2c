"""Whatever bytes arrive: a message of the type asked for, or WireError. Nothing else, ever.

A message that does decode must also encode, and decode again to the same value.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import msgpack
import numpy as np
import pytest

import wire.messages as m
from fuzz.mutations import mutate_bytes, mutate_value
from wire.codec import WireError, decode, encode
from wire.fields import Message
from wire.tensors import unpack

Golden = dict[str, tuple[type[Message], bytes]]


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
