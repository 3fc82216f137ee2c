"""Messages to bytes and back: msgpack for the bytes, msgspec for the types. Malformed input gives WireError, only that.

Strict in both directions: what `encode` lets out, `decode` of the same version takes in, and nothing else. Order of
`decode`: size, structure (wire.structure, before memory is taken), values, types. The data of a tensor is copied once,
from the buffer into its `bytes`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec

from wire.errors import ProtocolVersionError, WireError
from wire.fields import Message
from wire.limits import MAX_ERROR_CHARS, MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from wire.structure import check_structure

__all__ = [
    "CONTENT_TYPE",
    "ProtocolVersionError",
    "WireError",
    "check_content_type",
    "check_protocol",
    "decode",
    "encode",
]

MEDIA_TYPE = "application/vnd.braid+msgpack"
CONTENT_TYPE = f"{MEDIA_TYPE}; v={PROTOCOL_VERSION}"
"""`Content-Type` of every request and answer whose body is a message."""

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The message as msgpack: a map of all its fields in their order. Equal messages of one type give equal bytes.

    Raises WireError if the message would be refused by `decode`, so that a fault shows on the side that made it.
    """
    kind = type(message)
    try:
        plain = msgspec.to_builtins(message, builtin_types=(bytes,))
        msgspec.convert(plain, kind, builtin_types=(bytes,))
        data = msgpack.packb(plain)
    except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
        raise _wire_error(f"{kind.__name__} cannot be sent", error) from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise WireError(f"{kind.__name__} of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} may be sent")
    assert isinstance(data, bytes)
    return data


def decode(data: bytes | bytearray | memoryview, kind: type[M], *, max_bytes: int = MAX_MESSAGE_BYTES) -> M:
    """The message of type `kind` that `data` holds, all of it. `data` may be changed afterwards.

    Raises WireError, which names the field where there is one, for anything else: too long, cut, trailing bytes, wrong
    type, unknown, missing or repeated key, a number out of its range, NaN, infinity.
    """
    view = _byte_view(data)
    if len(view) > max_bytes:
        raise WireError(f"{kind.__name__} of {len(view)} bytes, at most {max_bytes} are allowed")
    check_structure(view)
    try:
        plain = msgpack.unpackb(view, object_pairs_hook=_map_of_unique_keys)
        return msgspec.convert(plain, kind, strict=True, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise _wire_error(f"not a {kind.__name__}", error) from error


def check_content_type(value: str | None) -> None:
    """Pass `CONTENT_TYPE`, in any spelling that HTTP calls equal.

    Raises ProtocolVersionError for our media type with another version, WireError for another type or none.
    """
    media_type, *parameters = (part.strip() for part in (value or "").split(";"))
    if media_type.lower() != MEDIA_TYPE:
        raise WireError(f"content type is {media_type[:80]!r}, {CONTENT_TYPE!r} is needed")
    versions = [
        text.strip().strip('"') for name, _, text in (p.partition("=") for p in parameters) if name.lower() == "v"
    ]
    if versions != [str(PROTOCOL_VERSION)]:
        raise ProtocolVersionError(_other_version(", ".join(versions)[:20] or "none"))


def check_protocol(protocol: int) -> None:
    """Raise ProtocolVersionError unless a message's `protocol` field is a version that this package speaks."""
    if protocol != PROTOCOL_VERSION:
        raise ProtocolVersionError(_other_version(str(protocol)))


def _other_version(theirs: str) -> str:
    newer = theirs.isdecimal() and int(theirs) > PROTOCOL_VERSION
    advice = "upgrade braid on this side" if newer else "upgrade braid on the other side"
    return f"the other side speaks protocol version {theirs}, this one speaks {PROTOCOL_VERSION}: {advice}"


def _byte_view(data: bytes | bytearray | memoryview) -> memoryview:
    view = memoryview(data)
    if not view.c_contiguous:
        raise WireError("message is not one contiguous piece of memory")
    return view.cast("B")


def _map_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """msgpack would keep the last of two equal keys, another decoder the first: two readers of one message."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} occurs twice")
    return fields


def _wire_error(what: str, error: Exception) -> WireError:
    """Cut to MAX_ERROR_CHARS, since the text may quote the peer and is sent on in a Refusal."""
    return WireError(f"{what}: {error}"[:MAX_ERROR_CHARS])
