"""Proofs of a server to its boards: that it is the one where they enrolled, that a certificate is its own, and that
its versions are one history.

A server keeps a hash of each credential, a board the credential itself: both can make the same HMAC of a number that
the board has just drawn, and nobody else can. What is sent says nothing about the key, which has 256 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_PURPOSE = b"braid: this is the server where you enrolled\n"
_CERTIFICATE_PURPOSE = b"braid: this is my certificate\n"
"""Keep the uses of a credential's hash apart from each other, and from every later one."""

_HISTORY_PURPOSE = "braid: the versions of this run\n"


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


def certificate_proof(known_hash: str, device: str, nonce: str, fingerprint: str) -> str:
    """HMAC-SHA256 as `server_proof`, of the fingerprint of the server's own certificate besides.

    Somebody who relays the question to the true server gets a proof of that one's certificate, not of the one that the
    board sees: the board can trust a certificate that is proven so without knowing it before.

    Args:
        known_hash, device, nonce: as for `server_proof`.
        fingerprint: SHA-256 of the certificate's DER bytes, 64 lower-case hexadecimal digits.
    """
    message = _CERTIFICATE_PURPOSE + f"{fingerprint}\n{nonce}\n{device}".encode()
    return hmac.new(bytes.fromhex(known_hash), message, hashlib.sha256).hexdigest()


def is_certificate_proof(proof: str, credential: str, device: str, nonce: str, fingerprint: str) -> bool:
    """Whether `proof` was made by somebody who has the hash of `credential`, about the certificate `fingerprint`."""
    return hmac.compare_digest(proof, certificate_proof(credential_hash(credential), device, nonce, fingerprint))


# --- the history of versions ----------------------------------------------------------------------------------------


def empty_history(run_id: str, base: str, manifest: str) -> str:
    """The chain's value before version 1: SHA-256 of the run, the base's digest and the manifest's; lower-case hex."""
    return _digest(f"{_HISTORY_PURPOSE}{run_id}\n{base}\n{manifest}\n")


def next_history(before: str, version: int, digest: str) -> str:
    """The chain's value after one more version: SHA-256 of the value before and of that version; lower-case hex.

    Args:
        before: the value up to the version before.
        version: its number.
        digest: SHA-256 of the global adapter as the server stores it.
    """
    return _digest(f"{before}\n{version} {digest}\n")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
