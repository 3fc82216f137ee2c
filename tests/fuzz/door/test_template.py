"""Inputs for a server: marks become what fits the rest, all other bytes go out as they are."""

from __future__ import annotations

import hashlib

from fuzz.door.template import NEXT, VERSION, rendered


def test_marks_fit_the_body_that_is_sent() -> None:
    """Length and digest are of the body with the version's digest in it; who sends none asks about the one before."""
    first = b"PATCH / HTTP/1.1\r\nContent-Length: {length}\r\nUpload-Digest: {digest}\r\n\r\nab" + VERSION
    body = b"ab" + b"0" * 16

    sent = rendered(first + NEXT + b"HEAD / HTTP/1.1\r\nUpload-Digest: {digest}\r\n\r\n", "0" * 16)

    digest = hashlib.sha256(body).hexdigest().encode()
    head = b"PATCH / HTTP/1.1\r\nContent-Length: 18\r\nUpload-Digest: " + digest + b"\r\n\r\n"
    assert sent == head + body + b"HEAD / HTTP/1.1\r\nUpload-Digest: " + digest + b"\r\n\r\n"


def test_other_bytes_are_sent_as_they_are() -> None:
    """Also a mark that is damaged, or stands in a body."""
    data = b"\x00{lengt}\xff\r\n\r\n{length}"

    assert rendered(data, "") == data
