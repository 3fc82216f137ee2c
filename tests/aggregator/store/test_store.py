"""The store's contract, on memory and file alike; what a second reader sees; and the order blob, row, reply."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aggregator.errors import DiskError, StateError
from aggregator.store.blobs import Blobs
from aggregator.store.records import (
    Answer,
    ConflictError,
    Device,
    RoundClosedError,
    ShutOutError,
    StoredReport,
    Traffic,
)
from aggregator.store.store import Store
from aggregator.store.tables import MIGRATIONS


def answer(round_id: int = 1, device: str = "d-1", digest: str = "a" * 64, accepted: bool = True) -> Answer:
    return Answer(round_id, round_id, device, digest, 100, 10, accepted, "" if accepted else "too large")


def enrolled(store: Store, number: int = 1) -> Device:
    return store.enrol(f"{number:032x}", f"d-{number}", f"{number:064x}")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store(None if request.param == "memory" else tmp_path / "braid.db", wall_clock=lambda: 12.5)
    yield made
    made.close()


class TestContract:
    """What every store promises."""

    def test_the_same_install_is_the_same_device_with_a_fresh_credential(self, store: Store) -> None:
        """Enrolling again keeps the device id and ends the old credential."""
        first = store.enrol("1" * 32, "ada", "a" * 64)
        again = store.enrol("1" * 32, "ada at home", "b" * 64)

        assert (again.device, again.name, again.enrolled_at) == (first.device, "ada at home", 12.5)
        assert store.device_of("a" * 64) is None
        assert store.device_of("b" * 64) == again
        assert store.devices() == (again,)

    def test_revoking_stays(self, store: Store) -> None:
        """A revoked device cannot enrol again until it is allowed; an unknown one can be neither."""
        enrolled(store)

        assert store.revoke_device("d-1") and not store.revoke_device("d-9")
        with pytest.raises(ShutOutError):
            enrolled(store)
        assert store.allow_device("d-1") and not store.allow_device("d-9")
        assert not enrolled(store).revoked

    def test_tokens(self, store: Store) -> None:
        """Tokens are numbered, listed and revoked; only hashes are there."""
        number = store.add_token("h" * 64, "first").id

        assert store.revoke_token(number) and not store.revoke_token(99)
        assert [(t.hash, t.label, t.revoked) for t in store.tokens()] == [("h" * 64, "first", True)]

    def test_an_update_counts_once(self, store: Store) -> None:
        """Same digest: the stored answer. Another: ConflictError, and the first one stays."""
        enrolled(store)
        store.open_round(1, 1)
        store.add_update(answer())

        assert store.add_update(answer()) == answer()
        with pytest.raises(ConflictError) as caught:
            store.add_update(answer(digest="b" * 64))

        assert caught.value.stored == answer() == store.update_of(1, "d-1")
        assert store.updates(1) == (answer(),)

    def test_a_closed_round_takes_nothing_but_repeats(self, store: Store) -> None:
        """After the round is merged, a new update is refused and an old one is still acknowledged."""
        enrolled(store), enrolled(store, 2)
        store.open_round(1, 1)
        store.add_update(answer())
        store.merge_round(1, "deadline", 2, "c" * 64, {"d-1": Traffic(5, 6, 7)})

        with pytest.raises(RoundClosedError):
            store.add_update(answer(device="d-2"))
        with pytest.raises(RoundClosedError):
            store.merge_round(1, "again", 3, "d" * 64, {})
        with pytest.raises(RoundClosedError):
            store.extend_round(7, "never opened")
        assert store.add_update(answer()) == answer()
        assert store.versions() == {2: "c" * 64}
        assert (store.devices()[0].bytes_up, store.devices()[0].requests) == (5, 7)
        assert store.rounds()[0].state == "merged" and store.rounds()[0].closed_at == 12.5

    def test_what_was_committed_and_reported_as_failed_can_be_done_again(self, store: Store) -> None:
        """With the same words, and counted once: a commit may fail to read what it has written all the same. Other
        words are another server's, and refused."""
        enrolled(store)
        for _ in range(2):
            store.add_version(1, "a" * 64)
        for _ in range(2):
            store.open_round(1, 1)
        for _ in range(2):
            store.merge_round(1, "quorum", 2, "c" * 64, {"d-1": Traffic(5, 6, 7)})
        store.open_round(2, 2)
        for _ in range(2):
            store.abandon_round(2, "not finite")

        assert [one.state for one in store.rounds()] == ["merged", "abandoned"]
        assert store.versions() == {1: "a" * 64, 2: "c" * 64}
        assert (store.devices()[0].bytes_up, store.devices()[0].requests) == (5, 7)
        with pytest.raises(RoundClosedError):
            store.abandon_round(2, "another reason")
        with pytest.raises(RoundClosedError):
            store.merge_round(1, "quorum", 2, "d" * 64, {})

    def test_a_late_update_counts_in_the_open_round(self, store: Store) -> None:
        """It is stored under the round that it was trained for, once, and belongs to the one that was open."""
        enrolled(store)
        store.open_round(1, 1)
        store.merge_round(1, "quorum", 2, "c" * 64, {})
        store.open_round(2, 2)
        late = replace(answer(), counted_in=2, staleness=1)

        assert store.add_update(late) == late == store.update_of(1, "d-1")
        with pytest.raises(ConflictError):
            store.add_update(replace(late, digest="b" * 64))
        assert store.updates(1) == () and store.updates(2) == (late,)
        assert store.counts("counted_in") == {2: (1, 0, 1)} and late.digest in store.live_digests()
        store.merge_round(2, "quorum", 3, "d" * 64, {})
        assert store.add_update(late) == late and late.digest not in store.live_digests()

    def test_an_extended_round_is_open_and_an_abandoned_one_is_not(self, store: Store) -> None:
        """Extending changes the state only; abandoning ends the round without a version."""
        enrolled(store), enrolled(store, 2)
        store.open_round(1, 1)
        store.extend_round(1, "too few")
        store.add_update(answer())

        store.abandon_round(1, "not finite")

        with pytest.raises(RoundClosedError):
            store.add_update(answer(device="d-2"))
        assert store.versions() == {}

    def test_a_board_profiles_once(self, store: Store) -> None:
        """A second profile gets the first one's answer, whatever its bytes."""
        enrolled(store)
        first = store.add_profile(answer(0))

        assert store.add_profile(answer(0, digest="b" * 64)) == first == store.profile_of("d-1")
        assert store.profiles() == (first,)

    def test_reports_are_replaced(self, store: Store) -> None:
        """The last report of a kind and version stays, so a board cannot fill the disk."""
        enrolled(store)
        for loss in (3.0, 2.0):
            store.put_reports([StoredReport("d-1", "evaluation", 1, 1, "", {"loss": loss})])

        assert [dict(report.values) for report in store.reports()] == [{"loss": 2.0}]

    def test_live_digests_are_those_still_needed(self, store: Store) -> None:
        """Profiles until version 1, accepted updates of the open round, and every version."""
        enrolled(store), enrolled(store, 2)
        store.add_profile(answer(0, digest="1" * 64))
        assert store.live_digests() == {"1" * 64}

        store.add_version(1, "2" * 64)
        store.open_round(1, 1)
        store.add_update(answer(digest="3" * 64))
        store.add_update(answer(device="d-2", digest="4" * 64, accepted=False))
        assert store.live_digests() == {"2" * 64, "3" * 64}

        store.merge_round(1, "deadline", 2, "5" * 64, {})
        store.forget_versions(2)
        assert store.live_digests() == {"5" * 64}

    def test_facts_settle_once(self, store: Store) -> None:
        """The first value stays until it is replaced on purpose."""
        assert store.settle("run_id", "a") == store.settle("run_id", "b") == "a" == store.fact("run_id")
        store.replace_fact("run_id", "c")
        assert store.fact("run_id") == "c" and store.fact("nothing") is None

    def test_counts(self, store: Store) -> None:
        """Accepted and refused, per round and per device."""
        enrolled(store), enrolled(store, 2)
        store.open_round(1, 1)
        store.add_update(answer())
        store.add_update(answer(device="d-2", accepted=False))

        assert store.counts("counted_in") == {1: (1, 1, 0)}
        assert store.counts("device") == {"d-1": (1, 0, 0), "d-2": (0, 1, 0)}


def test_a_second_connection_sees_what_was_acknowledged(tmp_path: Path) -> None:
    """Rows are committed when the method returns, in WAL mode, and foreign keys hold."""
    store = Store(tmp_path / "braid.db")
    enrolled(store)
    store.open_round(1, 1)
    store.add_update(answer())

    raw = sqlite3.connect(tmp_path / "braid.db")

    assert raw.execute("SELECT digest FROM updates").fetchall() == [("a" * 64,)]
    assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert raw.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    raw.close()
    store.close()


def test_a_database_of_before_boards_could_leave_goes_on(tmp_path: Path) -> None:
    """The column is added, and nobody has left."""
    path = tmp_path / "braid.db"
    store = Store(path)
    store.enrol("1" * 32, "ada", "c" * 64)
    store.close()
    raw = sqlite3.connect(path)
    raw.execute("ALTER TABLE devices DROP COLUMN has_left")
    raw.execute("PRAGMA user_version = 1")
    raw.commit()
    raw.close()

    store = Store(path)

    assert [(device.device, device.has_left) for device in store.devices()] == [("ada", False)]
    store.close()


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """A schema from the future is an error that says so, and changes nothing."""
    Store(tmp_path / "braid.db").close()
    raw = sqlite3.connect(tmp_path / "braid.db")
    raw.execute("PRAGMA user_version = 99")
    raw.commit()
    raw.close()

    with pytest.raises(StateError, match="schema version 99"):
        Store(tmp_path / "braid.db")


def test_a_file_that_is_no_database_is_named_as_damaged(tmp_path: Path) -> None:
    """Garbage gives StateError with a hint, not the driver's traceback; a folder in the way gives DiskError."""
    (tmp_path / "braid.db").write_bytes(b"no database" * 1000)
    (tmp_path / "folder").mkdir()

    with pytest.raises(StateError, match="damaged"):
        Store(tmp_path / "braid.db")
    with pytest.raises(DiskError):
        Store(tmp_path / "folder")


def test_blobs_are_checked_and_swept(tmp_path: Path) -> None:
    """A blob is found under its digest, a damaged or missing one is named, and orphans go at start."""
    blobs = Blobs(tmp_path / "blobs")
    kept, orphan = blobs.put(b"kept"), blobs.put(b"orphan")
    (tmp_path / "blobs" / ".braid-x.part").write_bytes(b"killed while writing")

    assert blobs.put(b"kept") == kept and blobs.get(kept) == b"kept"
    assert blobs.sweep({kept}) == 2
    with pytest.raises(StateError, match="missing"):
        blobs.get(orphan)
    blobs.path(kept).write_bytes(b"kepd")
    with pytest.raises(StateError, match="damaged"):
        blobs.get(kept)


class StoreMachine(RuleBasedStateMachine):
    """Updates and rounds in any order, against a dict."""

    @initialize()
    def begin(self) -> None:
        self.store = Store(None)
        self.model: dict[tuple[int, str], Answer] = {}
        self.open: dict[int, bool] = {}
        for number in (1, 2, 3):
            enrolled(self.store, number)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(round_id=st.integers(1, 3))
    def open_round(self, round_id: int) -> None:
        if round_id not in self.open:
            self.store.open_round(round_id, 1)
            self.open[round_id] = True

    @rule(round_id=st.integers(1, 3))
    def close_round(self, round_id: int) -> None:
        if self.open.get(round_id):
            self.store.merge_round(round_id, "", 10 + round_id, "c" * 64, {})
            self.open[round_id] = False
        else:
            with pytest.raises(RoundClosedError):
                self.store.merge_round(round_id, "", 10 + round_id, "d" * 64, {})

    @rule(round_id=st.integers(1, 3), number=st.integers(1, 3), digest=st.sampled_from("ab"), accepted=st.booleans())
    def send(self, round_id: int, number: int, digest: str, accepted: bool) -> None:
        sent = answer(round_id, f"d-{number}", digest * 64, accepted)
        known = self.model.get((round_id, sent.device))
        if known is not None and known.digest != sent.digest:
            with pytest.raises(ConflictError):
                self.store.add_update(sent)
        elif known is not None:
            assert self.store.add_update(sent) == known
        elif self.open.get(round_id):
            assert self.store.add_update(sent) == sent
            self.model[round_id, sent.device] = sent
        else:
            with pytest.raises(RoundClosedError):
                self.store.add_update(sent)

    @invariant()
    def holds_what_was_acknowledged(self) -> None:
        if hasattr(self, "store"):
            assert {(a.round, a.device): a for a in self.store.updates()} == self.model


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestStoreMachine = StoreMachine.TestCase
