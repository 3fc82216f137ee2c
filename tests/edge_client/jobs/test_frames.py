from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.jobs.frames import MAX_FRAME_BYTES, FrameError, read_frame, write_frame


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_frames_come_back(bodies: list[bytes]) -> None:
    """What was written is read, frame by frame, and then None."""
    stream = io.BytesIO()
    for body in bodies:
        write_frame(stream, body)
    stream.seek(0)

    assert [read_frame(stream) for _ in bodies] == bodies
    assert read_frame(stream) is None


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_cut_frame_is_an_error(body: bytes, data: st.DataObject) -> None:
    """A stream that ends inside a frame is never taken for its end."""
    stream = io.BytesIO()
    write_frame(stream, body)
    cut = data.draw(st.integers(1, len(stream.getvalue()) - 1))

    with pytest.raises(FrameError):
        read_frame(io.BytesIO(stream.getvalue()[:cut]))


def test_stray_bytes_are_not_obeyed() -> None:
    """Text on the pipe reads as an absurd length, which is refused before memory is taken."""
    with pytest.raises(FrameError, match="announced"):
        read_frame(io.BytesIO(b"Traceback (most recent call last):"))


def test_a_frame_over_the_limit_is_not_written() -> None:
    """The writer refuses what the reader would."""
    with pytest.raises(FrameError):
        write_frame(io.BytesIO(), bytes(MAX_FRAME_BYTES + 1))
