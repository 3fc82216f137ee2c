"""Bombs: small messages that claim much are refused before memory is taken."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import msgpack
import pytest

import wire.messages as m
from wire.codec import WireError, decode
from wire.limits import MAX_DEPTH, MAX_ITEMS
from wire.structure import check_structure

HUGE = b"\xff\xff\xff\xff"  # 2^32 − 1
MANY = (1_000_000).to_bytes(4, "big")
LIST = (2048).to_bytes(2, "big")

BOMBS: dict[str, tuple[bytes, str]] = {
    "array of 2^32-1": (b"\xdd" + HUGE, "array of length 4294967295"),
    "map of 2^32-1": (b"\xdf" + HUGE, "map of length 4294967295"),
    "string of 2^32-1": (b"\xdb" + HUGE, "str of length 4294967295"),
    "bytes of 2^32-1": (b"\xc6" + HUGE, "bin of length 4294967295"),
    "extension of 2^32-1": (b"\xc9" + HUGE + b"\x01", "extension type"),
    "bytes that are not there": (b"\xc6\x04\x00\x00\x00" + b"x" * 99, "claims 67108864, but only 99 bytes follow"),
    "array longer than the rest": (b"\xdc" + LIST + b"\xc0" * 2047, "claims 2048, but only 2047"),
    "map longer than the rest": (b"\x8f" + b"\xa0" * 29, "claims 15, but only 29"),
    "a million items": (b"\xdd" + MANY + b"\xc0" * 1_000_000, "array of length 1000000"),
    "depth of 10,000": (b"\x91" * 10_000 + b"\xc0", f"nested deeper than {MAX_DEPTH} levels"),
    "depth of 10,000 in maps": (b"\x81\xa0" * 10_000 + b"\xc0", "nested deeper"),
    "arrays that each claim the rest": ((b"\xdc" + LIST) * 5 + b"\xc0" * 9_000, "ends early|nested deeper"),
    "floats of floats": (
        b"\xdc\x02\x01" + (b"\xdc" + LIST + (b"\xcb" + bytes(8)) * 2048) * 513,
        f"more than {MAX_ITEMS}",
    ),
}


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that Python allocated at most while `call` ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_without_memory(name: str) -> None:
    """Each bomb is refused for its reason, and takes less than 64 kB on the way, whatever it claims."""
    data, said = BOMBS[name]

    def refuse() -> None:
        with pytest.raises(WireError, match=said):
            decode(data, m.Task)

    assert peak_of(refuse) < 64 * 1024


def test_items_are_counted_over_the_whole_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that are each legal may not add up to more items than any legal message has."""
    monkeypatch.setattr("wire.structure.MAX_ITEMS", 9_999)
    rows = b"\xdc\x03\xe7" + b"\xc0" * 999

    check_structure(memoryview(b"\x99" + rows * 9))
    check_structure(memoryview(b"\x92" + b"\x99" + rows * 9 + b"\xdc\x03\xdb" + b"\xc0" * 987))
    with pytest.raises(WireError, match="more than 9999 items"):
        check_structure(memoryview(b"\x9a" + rows * 10))


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -1,
        -33,
        -129,
        -(2**15) - 1,
        -(2**31) - 1,
        2**7,
        2**8,
        2**16,
        2**32,
        1.5,
        "",
        "x" * 31,
        "x" * 32,
        "x" * 256,
        b"",
        b"x" * 256,
        b"x" * 65536,
        [],
        [0] * 15,
        [0] * 16,
        [1.5] * 2048,
        [1.5, 2.5, "not a float", None],
        [1.5, 7, 2.5],
        {},
        {str(i): i for i in range(15)},
        {str(i): [i, {"k": b"x"}] for i in range(64)},
    ],
)
def test_every_form_of_msgpack_is_walked(value: object) -> None:
    """What msgpack writes passes, whole; one byte less or more does not."""
    data = msgpack.packb(value)

    check_structure(memoryview(data))
    for changed in (data[:-1], data + b"\xc0"):
        with pytest.raises(WireError):
            check_structure(memoryview(changed))


def test_floats_of_32_bits_are_walked() -> None:
    """msgpack's own packer writes 64-bit floats, another's may not."""
    check_structure(memoryview(msgpack.packb([1.5, 2.5], use_single_float=True)))


def test_depth_limit_is_exact() -> None:
    """MAX_DEPTH levels pass, one more does not."""
    check_structure(memoryview(b"\x91" * MAX_DEPTH + b"\xc0"))
    with pytest.raises(WireError, match="nested deeper"):
        check_structure(memoryview(b"\x91" * (MAX_DEPTH + 1) + b"\xc0"))


def test_strand_values_of_a_large_run_pass() -> None:
    """The longest legal lists, σ² of 256 strands of 2048 weights, stay within the item limit."""
    check_structure(memoryview(msgpack.packb([[0.5] * 256] * 2048)))
