"""Reads of what the system holds in memory, and of nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from aggregator.http import cached_reads
from aggregator.http.cached_reads import read_cached


def test_bytes_from_an_offset_or_none(tmp_path: Path) -> None:
    """Just written, they are in memory; where the file system cannot tell, there are none."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))

    with path.open("rb", buffering=0) as file:
        assert read_cached(file, 90, 5) in (bytes(range(90, 95)), b"")
        assert read_cached(file, 90, 50) in (bytes(range(90, 100)), b"")
        assert read_cached(file, 100, 5) == b""


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EOPNOTSUPP, errno.EIO])
def test_what_is_not_in_memory_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Whoever reads it from the disk hears what is wrong with that."""
    refused: list[int] = []

    def refuse(*arguments: Any) -> int:
        refused.append(code)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(cached_reads, "_WITHOUT_WAITING", 8)
    monkeypatch.setattr(os, "preadv", refuse)
    (tmp_path / "file").write_bytes(b"some")

    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert read_cached(file, 0, 4) == b""
    assert refused == [code]


def test_a_system_without_such_reads_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_reads, "_WITHOUT_WAITING", None)
    (tmp_path / "file").write_bytes(b"some")

    with (tmp_path / "file").open("rb", buffering=0) as file:
        assert read_cached(file, 0, 4) == b""
