"""What is read back is what was written for that very source and origin, or nothing; and the folder stays bounded."""

from __future__ import annotations

import dataclasses
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from edge_client.engines.lean.encoder_cache.store import (
    TOUCH_EVERY_S,
    EncoderCache,
    Origin,
)
from edge_client.jobs.sizes import HEADER_BYTES, entry_bytes

WIDTH = 6
BF16 = Origin("d" * 64, "nf4", "bf16", "bf16")
INT8 = dataclasses.replace(BF16, stored="int8")
LIMIT_BYTES = 1 << 20
DAY_S = 86_400.0

ids_of_a_source = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9).map(tuple)


def cache(folder: Path, origin: Origin = BF16, limit_bytes: int = LIMIT_BYTES, **changes: Any) -> EncoderCache:
    return EncoderCache(folder, origin, WIDTH, limit_bytes, **changes)


def hidden_of(ids: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Rows that differ from source to source."""
    generator = torch.Generator().manual_seed(sum(ids) % 2**32 + len(ids))
    return (torch.randn(len(ids), WIDTH, generator=generator) * 30).to(dtype)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cache"


# --- what comes back -------------------------------------------------------------------------------------------------


@given(ids=ids_of_a_source)
@settings(deadline=None, max_examples=40)
def test_bf16_round_trip_is_exact(ids: tuple[int, ...]) -> None:
    """bf16 goes in and comes out bit for bit, also as fp32; fp32 is rounded to the nearest bf16."""
    with tempfile.TemporaryDirectory() as folder:
        kept, whole = cache(Path(folder)), hidden_of(ids, torch.float32)

        assert kept.put(ids, whole.to(torch.bfloat16))
        as_bf16, as_fp32 = kept.get(ids, torch.bfloat16), kept.get(ids, torch.float32)
        assert kept.put(ids, whole)
        rounded = kept.get(ids, torch.bfloat16)

    assert as_bf16 is not None and as_fp32 is not None and rounded is not None
    assert torch.equal(as_bf16, whole.to(torch.bfloat16)) and torch.equal(rounded, as_bf16)
    assert as_fp32.dtype == torch.float32 and torch.equal(as_fp32, as_bf16.float())


@given(ids=ids_of_a_source, scale=st.floats(1e-30, 1e30))
@settings(deadline=None, max_examples=40)
def test_int8_error_is_half_a_step(ids: tuple[int, ...], scale: float) -> None:
    """int8 is off by half of max|row|/127 at most, whatever the row's size; a row of zeros stays zero."""
    with tempfile.TemporaryDirectory() as folder:
        kept, hidden = cache(Path(folder), INT8), hidden_of(ids, torch.float32) * scale
        hidden[0] = 0

        assert kept.put(ids, hidden)
        back = kept.get(ids, torch.float32)

    assert back is not None and not back[0].any()
    steps = hidden.abs().amax(1, keepdim=True) / 127
    assert ((back - hidden).abs() <= steps * (0.5 + 1e-4)).all()


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_what_is_not_finite_stays_so(folder: Path, bad: float) -> None:
    """int8 does not turn a broken output into plausible numbers."""
    kept, hidden = cache(folder, INT8), torch.ones(2, WIDTH)
    hidden[1, 3] = bad

    kept.put((4, 1), hidden)
    back = kept.get((4, 1), torch.float32)

    assert back is not None and torch.isfinite(back[0]).all() and not torch.isfinite(back[1, 3])


def test_strided_input_is_written_in_order(folder: Path) -> None:
    """A view into a larger buffer is stored as the rows that it shows."""
    kept, wide = cache(folder), torch.arange(2.0 * 4 * WIDTH).view(4, 2 * WIDTH).to(torch.bfloat16)

    kept.put((1, 2, 3, 4), wide[:, ::2])
    back = kept.get((1, 2, 3, 4), torch.bfloat16)

    assert back is not None and torch.equal(back, wide[:, ::2])


@pytest.mark.parametrize("origin", [BF16, INT8])
def test_planned_size_is_the_size_on_disk(folder: Path, origin: Origin) -> None:
    """Planners count what is written."""
    kept = cache(folder, origin)

    kept.put((5, 6, 1), hidden_of((5, 6, 1)))

    (path,) = files(folder)
    assert path.stat().st_size == entry_bytes(3, WIDTH, origin.stored) == kept.total_bytes


@pytest.mark.parametrize("shape", [(2, WIDTH), (3, WIDTH + 1)])
def test_wrong_shape_is_refused(folder: Path, shape: tuple[int, int]) -> None:
    """One row per id of the right width, or nothing is written."""
    with pytest.raises(ValueError, match="3 ids"):
        cache(folder).put((1, 2, 3), torch.ones(shape))

    assert not files(folder)


# --- never another's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{"base_digest": "e" * 64}, {"format": "int8"}, {"compute": "fp32"}, {"stored": "int8"}]
)
def test_other_origins_are_never_served(folder: Path, change: dict[str, str]) -> None:
    """Where base, weight format, compute dtype or stored dtype differ, the entry is not there, even after a rename."""
    ids = (7, 8, 1)
    ours = cache(folder)
    ours.put(ids, hidden_of(ids))
    (path,) = files(folder)

    theirs = cache(folder, dataclasses.replace(BF16, **change))  # type: ignore[arg-type]
    assert theirs.missing([ids]) == [ids] and theirs.get(ids, torch.float32) is None

    theirs.put(ids, hidden_of(ids) + 1)
    (other,) = set(files(folder)) - {path}
    other.write_bytes(path.read_bytes())
    assert theirs.get(ids, torch.float32) is None and not other.exists()
    assert ours.get(ids, torch.float32) is not None


@given(first=ids_of_a_source, second=ids_of_a_source)
@settings(deadline=None, max_examples=40)
def test_other_sources_are_never_served(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    """A source finds its own entry alone; a longer or shorter one, or another order of ids, is another source."""
    with tempfile.TemporaryDirectory() as folder:
        kept = cache(Path(folder))
        kept.put(first, hidden_of(first))

        for other in (second, first[:-1], (*first, 0), first[::-1]):
            if other and other != first:
                assert kept.missing([other]) == [other] and kept.get(other, torch.bfloat16) is None
        assert kept.missing([first]) == []


def test_missing_names_each_once_in_order(folder: Path) -> None:
    """Distinct sources without an entry, as they first appear."""
    kept = cache(folder)
    kept.put((2,), hidden_of((2,)))

    assert kept.missing([(3,), (2,), (1,), (3,), (2,), (1, 1)]) == [(3,), (1,), (1, 1)]


def test_names_tell_nothing_and_rights_are_the_owners(folder: Path) -> None:
    """Folders 0700, files 0600, whatever the umask; names are hexadecimal digests."""
    before = os.umask(0)
    try:
        cache(folder).put((9, 1), hidden_of((9, 1)))
    finally:
        os.umask(before)

    (path,) = files(folder)
    places = [path.parent.parent, path.parent]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(place.stat().st_mode) for place in [folder, *places]} == {0o700}
    assert set("".join(path.relative_to(folder).parts)) <= set("0123456789abcdef")


# --- restarts and bounds ---------------------------------------------------------------------------------------------


def test_restart_keeps_entries(folder: Path) -> None:
    """What one process wrote, the next one finds."""
    cache(folder).put((3, 1), hidden_of((3, 1)))

    again = cache(folder)

    back = again.get((3, 1), torch.bfloat16)
    assert again.missing([(3, 1)]) == [] and back is not None and torch.equal(back, hidden_of((3, 1)))
    assert again.total_bytes == entry_bytes(2, WIDTH, "bf16")


def test_other_origins_go_first(folder: Path) -> None:
    """An old base's entries make room before any of the present one, however new they are."""
    size = entry_bytes(1, WIDTH, "bf16")
    old = dataclasses.replace(BF16, base_digest="old")
    cache(folder).put((1,), hidden_of((1,)))
    cache(folder, old).put((1,), hidden_of((1,)))

    ours = cache(folder, limit_bytes=2 * size)
    ours.put((2,), hidden_of((2,)))

    assert ours.missing([(1,), (2,)]) == []
    assert cache(folder, old).missing([(1,)]) == [(1,)]
    assert len(list(folder.iterdir())) == 1, "the emptied folder stayed"


def test_least_recently_kept_goes_first(folder: Path) -> None:
    """After a restart, what was kept within the day outlives what was not; files are touched once a day at most."""
    size, now_s = entry_bytes(1, WIDTH, "bf16"), 1e9
    first = cache(folder)
    for i in range(3):
        first.put((i,), hidden_of((i,)))
    for path in files(folder):
        os.utime(path, (now_s - 9 * DAY_S,) * 2)

    second = cache(folder, now_s=lambda: now_s)
    second.keep([(0,), (2,)])
    touched = {path: path.stat().st_mtime for path in files(folder)}
    assert sum(time_s > now_s - TOUCH_EVERY_S for time_s in touched.values()) == 2
    second.keep([(2,), (0,)])
    cache(folder, now_s=lambda: max(touched.values())).keep([(0,), (2,)])
    assert touched == {path: path.stat().st_mtime for path in files(folder)}

    third = cache(folder, limit_bytes=2 * size)
    assert third.missing([(0,), (1,), (2,)]) == [(1,)]


def test_kept_entries_are_not_evicted(folder: Path) -> None:
    """Where only kept entries are left, put says so and changes nothing; the next job keeps others."""
    size = entry_bytes(1, WIDTH, "bf16")
    kept = cache(folder, limit_bytes=2 * size)
    kept.keep([(1,)])
    kept.keep([(2,)])

    assert kept.put((1,), hidden_of((1,))) and kept.put((2,), hidden_of((2,)))
    assert not kept.put((3,), hidden_of((3,))) and not kept.put((4, 5), hidden_of((4, 5)))
    assert kept.missing([(1,), (2,)]) == []
    later = cache(folder, limit_bytes=2 * size)
    later.keep([(2,)])
    assert later.put((3,), hidden_of((3,)))
    assert later.missing([(1,), (2,), (3,)]) == [(1,)]


def test_reading_ahead_changes_nothing(folder: Path) -> None:
    """It is a hint: sources without an entry are passed over, and entries read as before."""
    kept = cache(folder)
    kept.put((1,), hidden_of((1,)))

    kept.read_ahead([(1,), (2,)])

    back = kept.get((1,), torch.bfloat16)
    assert back is not None and torch.equal(back, hidden_of((1,))) and kept.missing([(1,), (2,)]) == [(2,)]


def test_lowered_limit_holds_at_once(folder: Path) -> None:
    """Opening with less evicts down to it, before anything is put."""
    size = entry_bytes(1, WIDTH, "bf16")
    kept = cache(folder)
    for i in range(5):
        kept.put((i,), hidden_of((i,)))

    assert cache(folder, limit_bytes=2 * size).total_bytes == 2 * size == sum(p.stat().st_size for p in files(folder))
    assert cache(folder, limit_bytes=0).total_bytes == 0 == len(files(folder))


SOURCES = [(n, *range(length)) for n in range(4) for length in (0, 2, 5)]
MACHINE_LIMIT_BYTES = 5 * HEADER_BYTES + 200


class CacheMachine(RuleBasedStateMachine):
    """Random work of two origins on one folder, against what was last put."""

    @initialize()
    def open(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.written: dict[tuple[Origin, tuple[int, ...]], Tensor] = {}
        self.sure: set[tuple[int, ...]] = set()
        self.reopen(BF16)

    @rule(origin=st.sampled_from([BF16, INT8]))
    def reopen(self, origin: Origin) -> None:
        self.origin, self.sure, self.wanted = origin, set(), set[tuple[int, ...]]()
        self.cache = cache(self.folder, origin, MACHINE_LIMIT_BYTES)

    @rule(sources=st.sets(st.sampled_from(SOURCES)))
    def keep(self, sources: set[tuple[int, ...]]) -> None:
        self.cache.keep(sorted(sources))
        self.wanted |= sources
        self.sure = self.wanted - set(self.cache.missing(sorted(self.wanted)))

    @rule(ids=st.sampled_from(SOURCES), change=st.floats(-2, 2, width=16))
    def put(self, ids: tuple[int, ...], change: float) -> None:
        hidden = hidden_of(ids) + change
        self.sure.discard(ids)
        if self.cache.put(ids, hidden):
            self.written[self.origin, ids] = hidden
            assert not self.cache.missing([ids])
            self.sure |= {ids} & self.wanted

    @rule(ids=st.sampled_from(SOURCES))
    def get(self, ids: tuple[int, ...]) -> None:
        was_missing = bool(self.cache.missing([ids]))
        back = self.cache.get(ids, torch.float32)
        assert (back is None) == was_missing
        if back is not None:
            close = 0.0 if self.origin is BF16 else float(back.abs().max()) / 200
            torch.testing.assert_close(back, self.written[self.origin, ids].float(), rtol=0, atol=close)

    @invariant()
    def is_bounded(self) -> None:
        on_disk = sum(path.stat().st_size for path in files(self.folder))
        assert on_disk == self.cache.total_bytes <= MACHINE_LIMIT_BYTES
        assert not self.cache.missing(sorted(self.sure)), "a kept entry went"

    def teardown(self) -> None:
        self.place.cleanup()


CacheMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestRandomWork = pytest.mark.slow(CacheMachine.TestCase)
