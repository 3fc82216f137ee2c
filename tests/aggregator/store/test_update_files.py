"""Updates read from the disk a few weights at a time: the same parts, and damage found."""

from __future__ import annotations

from pathlib import Path

import msgpack
import msgspec
import pytest

from aggregator.errors import StateError
from aggregator.store.blobs import Blobs
from aggregator.store.update_files import UpdateFile
from tests.fakes.messages import UPDATE, WEIGHTS
from wire.codec import encode

INDEX = {weight.name: i for i, weight in enumerate(WEIGHTS)}
NAMES = list(INDEX)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


@pytest.mark.parametrize("order", ["as sent", "backwards"])
def test_parts_are_those_of_the_whole_message(blobs: Blobs, order: str) -> None:
    """Any choice of weights, with some that the board did not train; fields may come in any order."""
    fields = msgspec.to_builtins(UPDATE, builtin_types=(bytes,))
    data = encode(UPDATE) if order == "as sent" else msgpack.packb(dict(reversed(fields.items())))
    file = UpdateFile.open(blobs, blobs.put(data), INDEX)

    assert file.read(NAMES) == UPDATE
    for name in NAMES:
        assert file.read([name]).parts == tuple(part for part in UPDATE.parts if part.name == name)
    assert file.read([]) == file.head == msgspec.structs.replace(UPDATE, parts=())


@pytest.mark.parametrize("damage", ["missing", "cut", "changed", "not ours", "of another run"])
def test_a_file_that_is_not_what_was_accepted_is_named(blobs: Blobs, damage: str) -> None:
    """Before anything is merged of it."""
    data = {"not ours": b"\xc1", "of another run": encode(UPDATE).replace(b"wo", b"ow")}.get(damage, encode(UPDATE))
    digest = blobs.put(data)
    path = blobs.path(digest)
    if damage == "missing":
        path.unlink()
    elif damage in ("cut", "changed"):
        path.write_bytes(data[:-1] + (b"" if damage == "cut" else bytes([data[-1] ^ 1])))

    with pytest.raises(StateError, match=digest):
        UpdateFile.open(blobs, digest, INDEX)


def test_a_file_that_goes_after_it_was_checked_is_named(blobs: Blobs) -> None:
    """Read in parts, it may be damaged between two of them."""
    digest = blobs.put(encode(UPDATE))
    file = UpdateFile.open(blobs, digest, INDEX)
    blobs.path(digest).write_bytes(encode(UPDATE)[:50])
    with pytest.raises(StateError, match="has changed"):
        file.read(NAMES)

    blobs.path(digest).unlink()
    with pytest.raises(StateError, match="cannot be read"):
        file.read(NAMES)
