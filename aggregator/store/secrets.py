"""Who is calling: join tokens, device credentials and the operator's token. Only their hashes are stored.

Tokens are 256 random bits, so a plain SHA-256 is a safe hash: there is nothing to guess. No request is authenticated by
time: boards boot in 1970.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterable

from wire.proof import credential_hash

MAX_HEADER_CHARS = 1024
"""Longest Authorization header that is looked at; ours have about 60 characters."""


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> str:
    """SHA-256, lower-case hex; a device's is the key of the proof that this is its server."""
    return credential_hash(secret)


def is_among(secret: str, hashes: Iterable[str]) -> bool:
    """Whether the secret's hash is one of `hashes`, in a time that does not tell which, or how nearly."""
    mine = secret_hash(secret)
    matches = [hmac.compare_digest(mine, known) for known in hashes]
    return any(matches)


def bearer(header: str | None) -> str | None:
    """The credential in an Authorization header, or None."""
    scheme, _, value = (header or "")[:MAX_HEADER_CHARS].partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip().isascii() else None


def operator_secret(header: str | None) -> str | None:
    """The operator's token, as a bearer (commands, Prometheus) or a password (browsers ask for one)."""
    scheme, _, value = (header or "")[:MAX_HEADER_CHARS].partition(" ")
    if scheme.lower() != "basic":
        return bearer(header)
    try:
        _user, _, password = base64.b64decode(value.strip(), validate=True).decode("ascii").partition(":")
    except ValueError:  # no base64, or not of ASCII
        return None
    return password
