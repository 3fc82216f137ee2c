"""Frames on the pipe between the network process and the training worker. No tensor library is loaded here.

A frame is a 4-byte little-endian length and then that many bytes of msgpack.
"""

from __future__ import annotations

import struct
from typing import IO

MAX_FRAME_BYTES = 16 << 20
"""A job holds a RunInfo: 2048 weights with 256 values each make 5 MB, FLAN-T5-xxl at rank 64 makes
300 kB. Adapters and updates travel as files."""

_LENGTH = struct.Struct("<I")


class FrameError(Exception):
    """The pipe holds something that is not a frame: the other side died in mid-write, or wrote stray bytes."""


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next frame's body, or None when the stream ends between frames. Raises FrameError when it ends inside one."""
    head = _read(stream, _LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise FrameError("the pipe to the training worker ended inside a frame's length")
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes was announced, at most {MAX_FRAME_BYTES} are allowed")
    body = _read(stream, length)
    if len(body) < length:
        raise FrameError(f"the pipe to the training worker ended after {len(body)} of a frame's {length} bytes")
    return body


def write_frame(stream: IO[bytes], body: bytes) -> None:
    """Write and flush one frame. Raises FrameError where `body` is over the limit, OSError where the pipe is gone."""
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def _read(stream: IO[bytes], n_bytes: int) -> bytes:
    """Up to `n_bytes`, fewer only at the stream's end. Raw pipes may return less per call than was asked for."""
    parts = bytearray()
    while len(parts) < n_bytes:
        part = stream.read(n_bytes - len(parts))
        if not part:
            break
        parts += part
    return bytes(parts)
