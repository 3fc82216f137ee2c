"""The header of a safetensors file: the same tensors as the library finds, and one error for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from braid_common.base.files import BaseFilesError
from braid_common.base.safetensors_header import MAX_HEADER_BYTES, read_header, require_whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the library's own making, with an empty tensor and several types."""
    arrays = {
        "wide": np.arange(12, dtype=np.float32).reshape(3, 4),
        "half": np.ones((5,), np.float16),
        "codes": np.zeros((2, 3), np.uint8),
        "empty": np.zeros((0, 7), np.float32),
        "one": np.array(3.0),
    }
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_what_is_found_is_what_the_library_finds(path: Path) -> None:
    """Names, types, shapes, and each tensor's bytes at its place."""
    found = {tensor.name: tensor for tensor in read_header(path)}

    data = path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == set(found)
        for name, tensor in found.items():
            array = file.get_tensor(name)
            assert tensor.shape == array.shape and tensor.size_bytes == array.nbytes
            assert data[tensor.offset_bytes : tensor.offset_bytes + tensor.size_bytes] == array.tobytes()


def header(path: Path, **changes: Any) -> None:
    """Write a file of one tensor of 8 bytes whose place is described like this."""
    place = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    text = json.dumps({"a": place}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "F3"}, "unknown type 'F3'"),
        ({"dtype": 4}, "header cannot be read"),
        ({"shape": [3]}, "the bytes of a are not where its shape needs them"),
        ({"shape": [-2]}, "header cannot be read"),
        ({"shape": [2**40, 2**40]}, "the bytes of a are not"),
        ({"shape": [2.5]}, "header cannot be read"),
        ({"data_offsets": [8, 0]}, "the bytes of a are not"),
        ({"data_offsets": [4, 12]}, "the bytes of a are not"),
        ({"data_offsets": [0]}, "header cannot be read"),
        ({"data_offsets": None}, "header cannot be read"),
    ],
)
def test_a_place_that_cannot_be_is_named(path: Path, changes: dict[str, Any], said: str) -> None:
    """Whatever the header claims, one error that says what."""
    header(path)
    assert [tensor.name for tensor in read_header(path)] == ["a"]
    header(path, **changes)

    with pytest.raises(BaseFilesError, match=said):
        read_header(path)


def test_a_file_that_is_longer_than_it_says_is_damaged(path: Path) -> None:
    """As for the library: bytes that no tensor owns are a download that went wrong."""
    path.write_bytes(path.read_bytes() + b"x")

    with pytest.raises(BaseFilesError, match=r"it has \d+ of \d+ bytes"):
        require_whole([path])


def test_an_endless_header_is_not_read(path: Path) -> None:
    """The length at the start is checked before memory is taken for it."""
    with path.open("wb") as file:
        file.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER_BYTES + 100)

    with pytest.raises(BaseFilesError, match=f"at most {MAX_HEADER_BYTES} are read"):
        read_header(path)


@given(place=st.integers(0, 400), bit=st.integers(0, 7))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_one_kind_of_error(path: Path, place: int, bit: int) -> None:
    """The header is read, or BaseFilesError says why not; nothing else is raised."""
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= 1 << bit
    other = path.with_name("damaged.safetensors")
    other.write_bytes(damaged)

    try:
        read_header(other)
    except BaseFilesError as error:
        assert "damaged" in str(error)
