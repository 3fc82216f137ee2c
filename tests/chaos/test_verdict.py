"""The verdict: what was lost, what counts twice, and where two runs part."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from aggregator.store.records import Answer, Upload
from aggregator.store.store import Store
from chaos.ledger import Acknowledged
from chaos.verdict import Stored, first_difference, lost, read_store, twice

ADA, BO = Acknowledged("ada", 1, "a" * 64), Acknowledged("bo", 1, "b" * 64)
STORED = Stored((BO, ADA), (), {1: "v1", 2: "v2"}, rounds=1, blob="v2")


def test_nothing_is_lost_that_counts_or_waits() -> None:
    waiting = Acknowledged("ada", 2, "c" * 64)

    assert not lost([ADA, BO, waiting], replace(STORED, waiting=(waiting,)))
    assert lost([ADA, BO, waiting], STORED) == [waiting]


@pytest.mark.parametrize("other", [replace(ADA, digest="c" * 64), replace(ADA, round=2)])
def test_what_counts_twice(other: Acknowledged) -> None:
    """Two updates of one board for one round, and the same bytes in two rounds."""
    assert not twice(STORED)
    assert set(twice(replace(STORED, updates=(ADA, BO, other)))) == {ADA, other}


@pytest.mark.parametrize(
    ("other", "version"),
    [
        (STORED, None),
        (replace(STORED, versions={1: "v1", 2: "other"}), 2),
        (replace(STORED, versions={1: "v1"}), 2),
        (replace(STORED, versions={1: "v1", 2: "v2", 3: "v3"}), 3),
        (replace(STORED, blob="flipped"), 2),
    ],
)
def test_where_two_runs_part(other: Stored, version: int | None) -> None:
    assert first_difference(STORED, other) == version


def test_a_damaged_newest_version_differs_from_itself() -> None:
    damaged = replace(STORED, blob="flipped")
    assert first_difference(damaged, damaged) == 2


def test_a_servers_store_is_read_as_it_wrote_it(tmp_path: Path) -> None:
    """In the order in which updates were taken in; refused ones do not count."""
    data = b"version 2"
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / digest).write_bytes(data)
    store = Store(tmp_path / "braid.db")
    devices = [store.enrol(f"{i:032x}", name, f"{i:064x}").device for i, name in enumerate(("ada", "bo", "cyd"))]
    answer = Answer(1, 1, "", "", 9, 5, True)
    store.add_profile(replace(answer, round=0, counted_in=0, device=devices[1], digest="d" * 64))
    store.add_version(1, "e" * 64)
    store.open_round(1, 1)
    for device, letter, accepted in zip(devices, "cab", (True, False, True), strict=True):
        store.add_update(replace(answer, device=device, digest=letter * 64, accepted=accepted))
    store.merge_round(1, "all", 2, digest, {})
    store.open_round(2, 2)
    store.add_received([Upload(devices[0], 2, "f" * 64, 9)])
    store.close()

    stored = read_store(tmp_path)

    assert stored.updates == (
        Acknowledged("bo", 0, "d" * 64),
        Acknowledged("ada", 1, "c" * 64),
        Acknowledged("cyd", 1, "b" * 64),
    )
    assert stored.order == {0: ["bo"], 1: ["ada", "cyd"]}
    assert stored.waiting == (Acknowledged("ada", 2, "f" * 64),)
    assert (stored.rounds, stored.versions, stored.blob) == (1, {1: "e" * 64, 2: digest}, digest)
