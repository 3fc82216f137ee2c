"""Fingerprints are read as people copy them, and SHA-1 is told apart from nonsense."""

from __future__ import annotations

import pytest

from braid_common.fingerprint import parse_fingerprint

RAW = bytes(range(160, 192))
PAIRS = [f"{byte:02x}" for byte in RAW]


@pytest.mark.parametrize("join", ["", ":", " "])
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize(
    "head",
    ["", "sha256:", "SHA256:", "sha256 Fingerprint=", "SHA256 Fingerprint=", "SHA-256 Fingerprint: ", "Fingerprint = "],
)
def test_every_usual_spelling(head: str, upper: bool, join: str) -> None:
    """What openssl 1 and 3 print, what browsers show, and ours; also with a line feed behind it."""
    digits = join.join(PAIRS)

    assert parse_fingerprint(f" {head}{digits.upper() if upper else digits}\n") == RAW


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 31, "ab" * 33, "sha256:", "sha512:" + "ab" * 64])
def test_nonsense_is_refused(text: str) -> None:
    """With what was given in the sentence."""
    with pytest.raises(ValueError, match="is not a SHA-256 fingerprint"):
        parse_fingerprint(text)


@pytest.mark.parametrize("text", ["ab" * 20, "SHA1 Fingerprint=" + ":".join(["AB"] * 20)])
def test_sha_1_is_named(text: str) -> None:
    """The option that openssl needs is told."""
    with pytest.raises(ValueError, match=r"SHA-1 fingerprint.*-sha256"):
        parse_fingerprint(text)
