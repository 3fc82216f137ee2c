"""Inputs for a server: requests as they go over the line, with marks for what has to fit the rest of them.

Without the marks nearly every changed body would be refused for its length or its digest, and nothing behind that would
ever be reached. A mark that a change has damaged is sent as it is.
"""

from __future__ import annotations

import hashlib

NEXT = b"\n----\n"
"""Stands between requests that are sent one after another on one connection."""

LENGTH, DIGEST = b"{length}", b"{digest}"
"""In a head: bytes of the body as it is sent, and its SHA-256; where there is none, that of the body before it, which a
board asks about."""

VERSION = b"fedcba9876543210"
"""In a body: the digest of the newest version, which is of the same length."""

BOARD = "the-credential-of-a-board"
OPERATOR = "the-token-of-the-operator"
TOKEN = "a-token-for-many-boards"  # noqa: S105 - made up, as the others
"""Secrets that the server knows; inputs hold them as they are."""


def rendered(data: bytes, version_digest: str) -> bytes:
    """The bytes to send for an input."""
    sent, last_body = b"", b""
    for request in data.split(NEXT):
        head, end, body = request.partition(b"\r\n\r\n")
        if version_digest:
            body = body.replace(VERSION, version_digest.encode())
        last_body = body or last_body
        head = head.replace(LENGTH, str(len(body)).encode())
        if DIGEST in head:
            head = head.replace(DIGEST, hashlib.sha256(last_body).hexdigest().encode())
        sent += head + end + body
    return sent
