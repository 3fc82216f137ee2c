"""A server's proof to a board that came by another address: frozen bytes, and nothing that fits another question."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from wire.proof import credential_hash, is_proof, new_nonce, server_proof

NONCE = "0123456789abcdef" * 4


def test_the_proof_of_version_1_is_frozen() -> None:
    """HMAC-SHA256 as docs/concepts/protocol.md has it, made here by hand."""
    key = hashlib.sha256(b"s3cret").digest()
    message = b"braid: this is the server where you enrolled\n" + NONCE.encode() + b"\nd-7"

    assert server_proof(credential_hash("s3cret"), "d-7", NONCE) == hmac.digest(key, message, "sha256").hex()


@given(device=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_it_fits_one_device_credential_and_nonce(device: str) -> None:
    """Names in any writing."""
    proof = server_proof(credential_hash("s3cret"), device, NONCE)

    assert is_proof(proof, "s3cret", device, NONCE)
    assert not is_proof(proof, "s3cret", device, new_nonce())
    assert not is_proof(proof, "another", device, NONCE)
    assert not is_proof("", "s3cret", device, NONCE)
    assert not is_proof(proof, "s3cret", device + "x", NONCE)


def test_nonces_are_drawn_anew() -> None:
    """256 bits each."""
    assert len({new_nonce() for _ in range(64)}) == 64 and len(new_nonce()) == 64
