"""Fingerprints of certificates, as people copy them: our own 64 digits, or what openssl and browsers show."""

from __future__ import annotations

import re

_HEAD = re.compile(r"(sha-?256)?[\s:]*(fingerprint)?[\s:=]*", re.IGNORECASE)

_SHA1_BYTES = 20
_SHA256_BYTES = 32


def parse_fingerprint(text: str) -> bytes:
    """The 32 bytes of a SHA-256 fingerprint: hex in either case, with colons, spaces or neither between, and with what
    openssl writes in front ("sha256 Fingerprint=AB:CD…").

    Raises ValueError, in a sentence, for anything else.
    """
    found = _HEAD.match(text.strip())
    digits = re.sub(r"[\s:]", "", text.strip()[found.end() if found else 0 :])
    is_hex = re.fullmatch(r"([0-9a-f]{2})+", digits, re.IGNORECASE)
    raw = bytes.fromhex(digits) if is_hex else b""
    if len(raw) == _SHA1_BYTES or re.match(r"sha-?1\b", text.strip(), re.IGNORECASE):
        raise ValueError(f"{text!r} is a SHA-1 fingerprint, SHA-256 is needed (openssl x509 -fingerprint -sha256)")
    if len(raw) != _SHA256_BYTES:
        raise ValueError(f"{text!r} is not a SHA-256 fingerprint")
    return raw
