"""encode and decode are each other's inverse on every message type, and refuse what is not a message."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

import wire.messages as m
import wire.run as r
from wire.codec import CONTENT_TYPE, ProtocolVersionError, WireError, check_content_type, check_protocol, decode, encode
from wire.fields import Message
from wire.limits import MAX_CONTROL_BYTES, MAX_ERROR_CHARS

KINDS = [k for k in (vars(r) | vars(m)).values() if isinstance(k, type) and issubclass(k, Message) and k is not Message]
RECEIPT = {"accepted": True, "reason": "fine"}
DTYPES: list[m.Dtype] = ["fp32", "bf16", "int8", "int4"]


@st.composite
def tensors(draw: st.DrawFn) -> m.Tensor:
    """Any tensor whose lengths fit its shape, whatever the bytes say."""
    dtype = draw(st.sampled_from(DTYPES))
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 70))
    data, scales = m.tensor_bytes(dtype, rows * columns)
    return m.Tensor(
        dtype=dtype,
        shape=(rows, columns),
        data=draw(st.binary(min_size=data, max_size=data)),
        scales=draw(st.binary(min_size=scales, max_size=scales)),
    )


def values_of(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Every value that a field's type allows, read off the type itself, so that no new field is forgotten."""
    match kind:
        case inspect.StructType(cls=m.Tensor):
            return tensors()
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: values_of(field.type) for field in fields})
        case inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(values_of(item), min_size=least or 0, max_size=(least or 0) + 2).map(tuple)
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values_of(key), values_of(value), max_size=3)
        case inspect.UnionType(types=types):
            return st.one_of([values_of(one) for one in types])
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.IntType(ge=ge, le=le):
            return st.integers(-(2**63) if ge is None else ge, 2**64 - 1 if le is None else le)
        case inspect.FloatType(ge=ge, gt=gt, le=le):
            return st.floats(gt if ge is None else ge, le, exclude_min=ge is None)
        case inspect.StrType(pattern=pattern, min_length=least, max_length=most):
            if pattern and "x00" not in pattern:
                return st.from_regex(pattern).filter(lambda text: len(text) <= (most or len(text)))
            return st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=least or 0, max_size=most)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
    raise AssertionError(f"no strategy for {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: type[Message]) -> None:
    """decode(encode(x)) == x for any legal x of every type, from bytes, bytearray and memoryview alike."""

    @settings(max_examples=40)
    @given(values_of(inspect.type_info(kind)))
    def check(message: Message) -> None:
        data = encode(message)

        assert decode(data, kind) == message
        assert decode(bytearray(data), kind) == decode(memoryview(data), kind) == message
        assert encode(decode(data, kind)) == data

    check()


def test_decoded_tensor_outlives_its_buffer() -> None:
    """A decoded message does not change when the caller reuses the buffer, and its data was copied once."""
    size = 1 << 20
    tensor = m.Tensor(dtype="int8", shape=(1024, 1024), data=b"\x01" * size, scales=b"\x00" * (size // 16))
    buffer = bytearray(encode(tensor))

    tracemalloc.start()
    decoded = decode(buffer, m.Tensor)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    buffer[:] = bytes(len(buffer))

    assert decoded == tensor
    assert peak < 1.2 * len(buffer)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "ends early, at byte 0"),
        (b"\x82\xa8accepted\xc3", "ends early"),
        (b"\x80\x00", "1 bytes follow"),
        (b"\x80", "missing required field `accepted`"),
        (b"\x90", "Expected `object`, got `array`"),
        (b"\xc0", "Expected `object`, got `null`"),
        (b"\x81\xa8accepted\x01", r"\$.accepted"),
        (b"\x81\x01\x02", "map key at byte 1 is no string"),
        (b"\x81\xc4\x01a\x02", "map key at byte 1 is no string"),
        (b"\x82\xa8accepted\xc3\xa8accepted\xc3", "'accepted' occurs twice"),
        (b"\x82\xa8accepted\xc3\xa6reason\xa1\xff", "utf-8"),
        (b"\x81\xa8accepted\xd4\x05\x00", "extension type 0xd4"),
        (b"\x81\xa8accepted\xc7\x00\xff", "extension type 0xc7"),
        (b"\xc1", "reserved type 0xc1"),
        (b"\xd9", "in the length at byte 0"),
        (msgpack.packb({**RECEIPT, "colour": 1}), "unknown field `colour`"),
        (msgpack.packb({**RECEIPT, "reason": None}), r"got `null` - at `\$.reason`"),
        (msgpack.packb({**RECEIPT, "reason": b"bytes"}), r"got `bytes` - at `\$.reason`"),
        (msgpack.packb({**RECEIPT, "reason": "x" * 2001}), "length <= 2000"),
    ],
)
def test_refusal_says_what_was_wrong(data: bytes, said: str) -> None:
    """Each way of being malformed has its own sentence, with the field where there is one."""
    with pytest.raises(WireError, match=said):
        decode(data, m.Receipt)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 1e301, None, "1", True])
def test_only_finite_numbers_pass(number: object) -> None:
    """A metric that is NaN, infinite or no number is refused by its name."""
    data = msgpack.packb({"kind": "progress", "values": {"loss": number}})

    with pytest.raises(WireError, match=r"\$.values"):
        decode(data, m.Report)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "fp16"},
        {"shape": [2, 1]},
        {"shape": [1]},
        {"shape": [1, 1, 1]},
        {"shape": [-1, -1]},
        {"shape": [1, 2**64 - 1]},
        {"shape": [1, 1.0]},
        {"shape": [2**17, 2**17]},
        {"data": b"123"},
        {"data": "AAAAAA=="},
        {"data": [0, 0, 0, 0]},
        {"scales": b"1234"},
    ],
)
def test_tensor_that_does_not_fit_itself(change: dict[str, Any]) -> None:
    """Wrong dtype, wrong shape, lengths that do not match and text instead of bytes are refused on decode."""
    plain = {"dtype": "fp32", "shape": [1, 1], "data": b"1234", "scales": b"", **change}

    with pytest.raises(WireError, match="not a Tensor"):
        decode(msgpack.packb(plain), m.Tensor)


def test_a_limit_may_be_set_for_one_call() -> None:
    """Control messages are read with a lower limit than adapters; the first byte too many is refused."""
    data = encode(m.Receipt(accepted=True))

    assert decode(data, m.Receipt, max_bytes=len(data)).accepted
    with pytest.raises(WireError, match=f"Receipt of {len(data)} bytes, at most {len(data) - 1}"):
        decode(data, m.Receipt, max_bytes=len(data) - 1)
    with pytest.raises(WireError, match="at most"):
        decode(bytes(MAX_CONTROL_BYTES + 1), m.Task, max_bytes=MAX_CONTROL_BYTES)


def test_a_buffer_with_gaps_is_refused() -> None:
    """A strided view is an error of the caller, told as a WireError and not as a TypeError from below."""
    with pytest.raises(WireError, match="contiguous"):
        decode(memoryview(encode(m.Receipt(accepted=True)))[::2], m.Receipt)


@pytest.mark.parametrize(
    "message",
    [
        m.Report(kind="progress", values={"loss": float("nan")}),
        m.Report(kind="progress", text="x" * 2001),
        m.Report(kind="progress", text="\ud800"),
        m.Report(kind="dance"),  # type: ignore[arg-type]
        m.Enrol(protocol=2**64, token="t", install_id="0" * 32, name="n", client_version="1"),
        m.Enrol(protocol=1, token="t\r\nX: y", install_id="0" * 32, name="n", client_version="1"),
        r.Base(model="m", digest="0" * 64 + "\n"),
        m.Receipt(accepted=object()),  # type: ignore[arg-type]
    ],
)
def test_what_decode_would_refuse_is_not_sent(message: Message) -> None:
    """A message that breaks the protocol fails on the side that made it."""
    with pytest.raises(WireError, match="cannot be sent"):
        encode(message)


def test_what_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size limit holds for senders too."""
    monkeypatch.setattr("wire.codec.MAX_MESSAGE_BYTES", 10)

    with pytest.raises(WireError, match="at most 10 may be sent"):
        encode(m.Receipt(accepted=True))


def test_text_of_an_error_is_short_enough_to_send() -> None:
    """An unknown key of 8,000 bytes is quoted in the error, but cut: the error goes into a Refusal."""
    with pytest.raises(WireError) as caught:
        decode(msgpack.packb({"x" * 8000: 1}), m.Receipt)

    assert len(str(caught.value)) == MAX_ERROR_CHARS
    encode(m.Refusal(code="bad_request", message=str(caught.value)))


@pytest.mark.parametrize(
    "value", [CONTENT_TYPE, "application/vnd.braid+msgpack;v=1", 'Application/Vnd.Braid+Msgpack ; V="1"']
)
def test_content_type_of_this_version(value: str) -> None:
    """Spacing, case and quotes are free in HTTP."""
    check_content_type(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("application/vnd.braid+msgpack; v=2", "version 2, this one speaks 1: upgrade braid on this side"),
        ("application/vnd.braid+msgpack; v=0", "version 0, this one speaks 1: upgrade braid on the other side"),
        ("application/vnd.braid+msgpack; v=1; v=2", "version 1, 2"),
        ("application/vnd.braid+msgpack; v=²", "version ²"),
        ("application/vnd.braid+msgpack", "version none"),
        ("application/vnd.braid+msgpack; v=" + "9" * 9999, "version 9{20},"),
    ],
)
def test_content_type_of_another_version(value: str, said: str) -> None:
    """A peer of another version is told so in a sentence, with which side to upgrade."""
    with pytest.raises(ProtocolVersionError, match=said):
        check_content_type(value)


@pytest.mark.parametrize("value", [None, "", "application/json", "text/html; v=1", "x" * 9999])
def test_content_type_of_something_else(value: str | None) -> None:
    """A proxy's error page is not taken for a version problem."""
    with pytest.raises(WireError, match="is needed") as caught:
        check_content_type(value)

    assert not isinstance(caught.value, ProtocolVersionError)


def test_protocol_field() -> None:
    """The field that carries the version inside a message is held to the same rule."""
    check_protocol(1)
    with pytest.raises(ProtocolVersionError, match="version 3"):
        check_protocol(3)


def test_unknown_fields_are_forbidden_everywhere() -> None:
    """A message type that forgets to inherit strictness would skip keys silently."""
    for kind in KINDS:
        config = kind.__struct_config__
        assert (config.forbid_unknown_fields, config.frozen) == (True, True), kind


def test_messages_load_no_numpy() -> None:
    """An idle client reads and writes messages without numpy, torch or a web framework in memory."""
    code = (
        "import sys, wire.messages, wire.codec, wire.checks, wire.rounds\n"
        "import braid_common.atomic_file, braid_common.base.files\n"
        "print(*[name for name in ('numpy', 'torch', 'aiohttp', 'msgspec') if name in sys.modules])"
    )

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert loaded == ["msgspec"]
