"""The entry by which the kernel starts arm64's programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from arm64.binfmt import entry, is_for_every_root

ARM64, ARM = "7f454c460201010000000000000000000200b700", "7f454c4601010100000000000000000002002800"


def test_the_entry_is_one_line_of_eight_fields() -> None:
    """As the kernel splits it: magic and mask of one length, for an ELF file of 64 bits for processor 183."""
    fields = entry("/usr/bin/qemu-aarch64-static").split(b":")
    magic, mask = (field.decode("unicode_escape").encode("latin1") for field in fields[4:6])

    assert fields[1:3] == [b"braid-aarch64", b"M"]
    assert fields[6:] == [b"/usr/bin/qemu-aarch64-static", b"POCF"]
    assert len(magic) == len(mask) == 20
    program = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + (183).to_bytes(2, "little")  # position-independent
    assert bytes(byte & kept for byte, kept in zip(program, mask, strict=True)) == magic


@pytest.mark.parametrize(
    ("state", "flags", "magic", "serves"),
    [
        ("enabled", "POCF", ARM64, True),
        ("enabled", "OC", ARM64, False),
        ("disabled", "F", ARM64, False),
        ("enabled", "F", ARM, False),
    ],
)
def test_an_entry_of_somebody_else_is_used_where_it_serves(
    state: str, flags: str, magic: str, serves: bool, tmp_path: Path
) -> None:
    """With F, enabled, for arm64: without F its QEMU would have to lie in every root."""
    file = tmp_path / "qemu-aarch64"
    file.write_text(f"{state}\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\nmagic {magic}\n")

    assert is_for_every_root(file) == serves
