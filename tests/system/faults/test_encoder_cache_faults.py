"""The prefix cache under damage, full disks and kills: an entry is whole or made again, and nothing else breaks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.engines.lean.encoder_cache.store import EncoderCache, Origin
from edge_client.errors import DiskError, ExitCode
from edge_client.jobs.sizes import HEADER_BYTES, entry_bytes

WIDTH = 5
IDS = (11, 12, 1)
ORIGINS = [Origin("d" * 64, "nf4", "bf16", "bf16"), Origin("d" * 64, "nf4", "bf16", "int8")]


def hidden_of(ids: tuple[int, ...], width: int = WIDTH) -> Tensor:
    return torch.linspace(-3, 4, len(ids) * width).view(len(ids), width).to(torch.bfloat16)


def only_file(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


@pytest.fixture(params=ORIGINS, ids=["bf16", "int8"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> EncoderCache:
    """One entry, of IDS."""
    made = EncoderCache(tmp_path, request.param, WIDTH, 1 << 20)
    assert made.put(IDS, hidden_of(IDS))
    return made


def assert_found_and_rebuilt(cache: EncoderCache, path: Path, damaged: bytes, fault: object) -> None:
    """Damage is told as absence, the entry is removed, and a new one serves."""
    whole = path.read_bytes()
    assert damaged != whole, f"the fault did not fire: {fault}"
    path.write_bytes(damaged)

    assert cache.get(IDS, torch.float32) is None, f"served in spite of {fault}"
    assert not path.exists() and cache.missing([IDS]) == [IDS] and cache.total_bytes == 0
    assert cache.put(IDS, hidden_of(IDS))
    assert path.read_bytes() == whole and cache.missing([IDS]) == [] and cache.total_bytes == len(whole)


@pytest.mark.slow
def test_every_flipped_bit_is_found(cache: EncoderCache, tmp_path: Path) -> None:
    """One wrong bit anywhere, header and checksum included."""
    path = only_file(tmp_path)
    whole = path.read_bytes()

    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_found_and_rebuilt(cache, path, bytes(damaged), f"bit {bit}")


def test_every_truncation_is_found(cache: EncoderCache, tmp_path: Path) -> None:
    """A file that ends early, or, as after a power cut, has its length but zeros from somewhere on; or is too long."""
    path = only_file(tmp_path)
    whole = path.read_bytes()
    last = max(i for i, byte in enumerate(whole) if byte)

    for n in range(len(whole)):
        assert_found_and_rebuilt(cache, path, whole[:n], f"{n} bytes")
        if n <= last:
            assert_found_and_rebuilt(cache, path, whole[:n].ljust(len(whole), b"\0"), f"zeros from byte {n}")
    assert_found_and_rebuilt(cache, path, whole + b"\0", "one byte more")


def test_wrong_length_is_missing_after_a_restart(cache: EncoderCache, tmp_path: Path) -> None:
    """A torn entry of the wrong size is seen when the folder is opened, without reading; a new one replaces it."""
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])

    origin = next(origin for origin in ORIGINS if entry_bytes(len(IDS), WIDTH, origin.stored) == cache.total_bytes)
    again = EncoderCache(tmp_path, origin, WIDTH, 1 << 20)

    assert again.missing([IDS]) == [IDS]
    assert again.put(IDS, hidden_of(IDS)) and again.total_bytes == path.stat().st_size == cache.total_bytes


def test_a_folder_that_vanishes_is_made_again(cache: EncoderCache, tmp_path: Path) -> None:
    """Someone removed the files of a running client: they are absent, and can be put again."""
    only_file(tmp_path).unlink()
    for folder in sorted(tmp_path.rglob("*"), reverse=True):
        folder.rmdir()

    assert cache.get(IDS, torch.float32) is None and cache.total_bytes == 0
    assert cache.put(IDS, hidden_of(IDS)) and cache.get(IDS, torch.float32) is not None


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """The kernel refuses to write more than this into any file of ours (EFBIG; Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room_bytes", [0, 1, HEADER_BYTES, HEADER_BYTES + 1])
def test_full_disk_is_a_disk_error(cache: EncoderCache, tmp_path: Path, room_bytes: int) -> None:
    """No room for an entry, wherever writing stops: exit code DISK with a hint, no half file, other entries whole."""
    other = (21, 22, 23, 1)

    with files_limited_to(room_bytes), pytest.raises(DiskError, match="no space left") as caught:
        cache.put(other, hidden_of(other))

    assert caught.value.exit_code is ExitCode.DISK and "--state" in caught.value.hint
    assert only_file(tmp_path).stat().st_size == cache.total_bytes
    assert cache.missing([IDS, other]) == [other] and cache.get(IDS, torch.float32) is not None
    assert cache.put(other, hidden_of(other)), "there is room again"


def test_full_disk_while_an_entry_is_replaced(cache: EncoderCache, tmp_path: Path) -> None:
    """The old entry may be gone, but is never half there."""
    with files_limited_to(HEADER_BYTES), pytest.raises(DiskError):
        cache.put(IDS, hidden_of(IDS))

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert cache.missing([IDS]) == [IDS] and cache.total_bytes == 0
    assert cache.put(IDS, hidden_of(IDS))


def test_a_file_in_the_way_is_a_disk_error(tmp_path: Path) -> None:
    """--state on something that is no folder: said in one line."""
    (tmp_path / "cache").write_text("not a folder")

    with pytest.raises(DiskError, match="cannot be used"):
        EncoderCache(tmp_path / "cache", ORIGINS[0], WIDTH, 1 << 20)


def test_foreign_files_are_swept_and_strangers_left_alone(cache: EncoderCache, tmp_path: Path) -> None:
    """Opening removes two killed writers' temp files and what lies among the entries; other files are not ours."""
    entry = only_file(tmp_path)
    strangers = [tmp_path / "README", tmp_path / "photos" / "1.jpg", entry.parent.parent / "note.txt"]
    leftovers = [tmp_path / ".braid-abc.part", tmp_path / ".braid-xyz.part", entry.parent / "junk"]
    (tmp_path / "photos").mkdir()
    for path in (*strangers, *leftovers):
        path.write_bytes(b"x")
    (entry.parent / ("0" * 62)).symlink_to(tmp_path / "README")

    EncoderCache(tmp_path, ORIGINS[0], WIDTH, 1 << 20)

    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {entry, *strangers}


WRITER = """
import sys
from pathlib import Path
import torch
from edge_client.engines.lean.encoder_cache.store import Origin, EncoderCache
cache = EncoderCache(Path(sys.argv[1]), Origin("d" * 64, "nf4", "bf16", "bf16"), 4096, 1 << 30)
for i in range(10_000):
    cache.put((i, 1), torch.full((2, 4096), i % 128, dtype=torch.bfloat16))
    print(i, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_before", [1, 7, 40])
def test_killed_writer_leaves_whole_entries(tmp_path: Path, n_before: int) -> None:
    """SIGKILL at any moment: every entry that is there reads whole, those reported are there, no temp file stays."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(n_before)]
        writer.kill()
        told += [int(line) for line in writer.stdout if line.endswith("\n")]
    assert writer.returncode == -signal.SIGKILL

    cache = EncoderCache(tmp_path, ORIGINS[0], 4096, 1 << 30)
    (origin,) = (path for path in tmp_path.iterdir())

    assert origin.is_dir() and cache.missing([(i, 1) for i in told]) == []
    assert cache.total_bytes == sum(path.stat().st_size for path in origin.rglob("*") if path.is_file())
    for i in [*told, told[-1] + 1]:
        back = cache.get((i, 1), torch.float32)
        assert (back is None and i not in told) or (back is not None and bool((back == i % 128).all()))


def test_a_clock_that_jumps_changes_no_content(tmp_path: Path) -> None:
    """1970, the future, 1970 again: what is there is right, the limit holds, what a job keeps stays."""
    sources = [(i, 1) for i in range(12)]
    limit_bytes = 6 * entry_bytes(2, WIDTH, "bf16")
    for now_s in (0.0, 4e9, 5.0, 1.8e9, -7.0):
        looks: list[float] = []
        kept = EncoderCache(tmp_path, ORIGINS[0], WIDTH, limit_bytes, now_s=partial(_look, looks, now_s))
        kept.keep(sources[:3])
        for ids in sources:
            kept.put(ids, hidden_of(ids))
        for path in tmp_path.rglob("*"):
            os.utime(path, (now_s, now_s))
        assert bool(looks) == (now_s != 0.0), "the clock was looked at, where there were entries"
        assert kept.missing(sources[:3]) == [] and kept.total_bytes <= limit_bytes
        for ids in sources:
            back = kept.get(ids, torch.bfloat16)
            assert back is None or torch.equal(back, hidden_of(ids))


def _look(looks: list[float], now_s: float) -> float:
    looks.append(now_s)
    return now_s
