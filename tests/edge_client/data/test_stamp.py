"""Data that changes while it is read, or between two looks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_client.data import load
from edge_client.data.load import MAX_READS, load_data
from edge_client.data.stamp import stamp_of
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec

ROW = '{{"source": "text {0} {1}", "target": "answer {0}"}}\n'


def write(path: Path, what: str, n: int = 20) -> None:
    path.write_text("".join(ROW.format(i, what) for i in range(n)))


def test_every_change_shows_and_no_clock_matters(tmp_path: Path) -> None:
    """Replaced by a file of the same size and time, cut off, removed, made anew; of a folder any file in it."""
    path = tmp_path / "data" / "rows.jsonl"
    path.parent.mkdir()
    write(path, "old")
    of_folder = [stamp_of(DataSpec(str(path.parent)))]
    stamps = [stamp_of(DataSpec(str(path)))]
    assert stamps[0] == stamp_of(DataSpec(str(path)))

    fresh = tmp_path / "fresh"
    write(fresh, "new")
    os.utime(fresh, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    assert fresh.stat().st_size == path.stat().st_size
    for change in (lambda: fresh.replace(path), lambda: os.truncate(path, 9), path.unlink, lambda: write(path, "1970")):
        change()
        os.utime(path, (0, 0)) if path.exists() else None
        stamps.append(stamp_of(DataSpec(str(path))))
        of_folder.append(stamp_of(DataSpec(str(path.parent))))

    assert len(set(stamps)) == len(set(of_folder)) == 5
    assert stamp_of(DataSpec("builtin:docstrings")) == ()


class Rewriting:
    """Somebody who writes the file anew while it is read: in the first `times` readings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, times: int) -> None:
        self.fired = 0
        original = load.Reading.read

        def read(reading: Any, found: Any, where: Path) -> None:
            original(reading, found, where)
            if self.fired < times:
                self.fired += 1
                write(path, f"new {self.fired}", n=20 + self.fired)

        monkeypatch.setattr(load.Reading, "read", read)


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples are those of one file, the newest."""
    path = tmp_path / "rows.jsonl"
    write(path, "old")
    writer = Rewriting(monkeypatch, path, times=MAX_READS - 1)

    data = load_data(DataSpec(str(path)))

    assert writer.fired == MAX_READS - 1 and data.n_examples == 20 + writer.fired
    assert all(f"new {writer.fired}" in example.source for example in (*data.train, *data.held_out))


def test_what_goes_on_changing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to replace data: beside it, then renamed."""
    path = tmp_path / "rows.jsonl"
    write(path, "old")
    writer = Rewriting(monkeypatch, path, times=99)

    with pytest.raises(DataError, match="changes while it is read") as caught:
        load_data(DataSpec(str(path)))

    assert writer.fired == MAX_READS and "rename" in caught.value.hint
