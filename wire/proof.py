"""The proof by which a server shows a board that it is the one where that board enrolled, before any secret is sent.

A server keeps a hash of each credential, a board the credential itself: both can make the same HMAC of a number that
the board has just drawn, and nobody else can. What is sent says nothing about the key, which has 256 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_PURPOSE = b"braid: this is the server where you enrolled\n"
"""Keeps this use of a credential's hash apart from every later one."""


def credential_hash(credential: str) -> str:
    """The hash under which a server keeps a credential: SHA-256, lower-case hex."""
    return hashlib.sha256(credential.encode()).hexdigest()


def new_nonce() -> str:
    """A number that was never used before: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def server_proof(known_hash: str, device: str, nonce: str) -> str:
    """HMAC-SHA256 (RFC 2104) of the device and the board's nonce, keyed by the credential's hash; lower-case hex.

    Args:
        known_hash: `credential_hash` of the device's credential.
        device: the id that the board says it has.
        nonce: what the board has drawn for this one question.
    """
    message = _PURPOSE + f"{nonce}\n{device}".encode()
    return hmac.new(bytes.fromhex(known_hash), message, hashlib.sha256).hexdigest()


def is_proof(proof: str, credential: str, device: str, nonce: str) -> bool:
    """Whether `proof` was made by somebody who has the hash of `credential`."""
    return hmac.compare_digest(proof, server_proof(credential_hash(credential), device, nonce))
