"""Tokens and devices as rows: each use counts once, whoever is shut out stays so, and what was removed is gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aggregator.store.credentials import RENEW_AFTER_S
from aggregator.store.join_tokens import TokenRefusedError
from aggregator.store.records import Answer, FleetFullError, RenewalError, ShutOutError, Traffic
from aggregator.store.store import Store
from tests.fakes.clock import FakeClock

TOKEN = "7" * 64


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    made = Store(tmp_path / "braid.db", wall_clock=clock)
    yield made
    made.close()


def enrol(store: Store, number: int, token: str | None = TOKEN, credential: int = 0) -> str:
    """Enrol board `number`; its device id."""
    return store.enrol(f"{number:032x}", f"board-{number}", f"{credential or number:064x}", token).device


class TestTokens:
    def test_ten_thousand_boards_cannot_come_by_one_token(self, store: Store) -> None:
        """Only as many as it has uses, also where they come all at once."""
        store.add_token(TOKEN, "", uses=3)

        def try_to(number: int) -> bool:
            try:
                enrol(store, number)
            except TokenRefusedError:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            let_in = sum(threads.map(try_to, range(1, 101)))

        assert let_in == 3 == len(store.devices()) == len(store.tokens()[0].devices)

    def test_a_token_lists_what_it_made_and_a_repeated_enrolment_takes_no_other_use(self, store: Store) -> None:
        """The board's answer was lost: the same device, a fresh credential."""
        store.add_token(TOKEN, "", uses=2)

        assert enrol(store, 1) == enrol(store, 1, credential=9) == "board-1"
        assert enrol(store, 2) == "board-2"

        assert store.tokens()[0].devices == ("board-1", "board-2") and not store.tokens()[0].uses_left
        assert store.device_of(f"{1:064x}") is None and store.device_of(f"{9:064x}") is not None

    def test_a_token_ends_by_the_clock(self, store: Store, clock: FakeClock) -> None:
        """An hour is an hour; what it let in stays in."""
        store.add_token(TOKEN, "", uses=2, life_s=3600)
        enrol(store, 1)
        clock.advance(3600)

        with pytest.raises(TokenRefusedError, match="expired"):
            enrol(store, 2)
        assert [device.device for device in store.devices()] == ["board-1"]

    def test_a_refused_enrolment_changes_nothing(self, store: Store) -> None:
        """The device that is known keeps its credential."""
        store.add_token(TOKEN, "", uses=1)
        enrol(store, 1)
        store.revoke_token(1)

        with pytest.raises(TokenRefusedError, match="revoked"):
            enrol(store, 1, credential=9)

        assert store.device_of(f"{1:064x}") is not None and store.device_of(f"{9:064x}") is None


class TestShuttingOut:
    def test_a_revoked_board_comes_back_by_no_token_and_under_no_other_id(self, store: Store) -> None:
        """The token that it knows ends with it; a new one does not help it; until it is allowed again."""
        store.add_token(TOKEN, "", uses=5)
        store.add_token("8" * 64, "")
        enrol(store, 1), enrol(store, 2)

        revoked = store.revoke_device("board-1")

        assert revoked is not None and revoked.tokens == (1,)
        for install, token in ((1, TOKEN), (1, "8" * 64)):
            with pytest.raises(ShutOutError):
                enrol(store, install, token)
        with pytest.raises(TokenRefusedError, match="revoked"):
            enrol(store, 3)  # the same board, having thrown away its id
        assert store.allow_device("board-1")
        assert enrol(store, 1, "8" * 64) == "board-1"

    def test_revoking_leaves_tokens_alone_that_can_do_no_harm(self, store: Store) -> None:
        """Used up, or never seen by that board."""
        store.add_token(TOKEN, "", uses=1)
        store.add_token("8" * 64, "", uses=2)
        enrol(store, 1), enrol(store, 2, "8" * 64)

        revoked = store.revoke_device("board-1")

        assert revoked is not None and revoked.tokens == () and not any(t.revoked for t in store.tokens())

    def test_an_upload_under_way_does_not_count(self, store: Store) -> None:
        """Shut out, or removed, between its first byte and its last: neither update nor profile is stored."""
        enrol(store, 1, None), enrol(store, 2, None)
        store.open_round(1, 1)
        store.revoke_device("board-1"), store.remove_device("board-2")

        for device in ("board-1", "board-2"):
            answer = Answer(1, 1, device, "a" * 64, 1, 1, True)
            with pytest.raises(ShutOutError):
                store.add_update(answer)
            with pytest.raises(ShutOutError):
                store.add_profile(answer)

        assert store.updates() == () == store.profiles()

    def test_a_removed_device_makes_room_and_leaves_its_updates(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Name and counters go, its board comes back as a new device and not as the old one."""
        monkeypatch.setattr("aggregator.store.devices.MAX_DEVICES", 2)
        store.add_token(TOKEN, "", uses=9)
        enrol(store, 1), enrol(store, 2)
        store.open_round(1, 1)
        sent = store.add_update(Answer(1, 1, "board-1", "a" * 64, 1, 1, True))
        store.count_bytes({"board-1": Traffic(5, 7, 9)})
        with pytest.raises(FleetFullError):
            enrol(store, 3)

        assert store.remove_device("board-1") and not store.remove_device("board-1")

        assert store.updates(1) == (sent,) and [device.device for device in store.devices()] == ["board-2"]
        gone = store.device("board-1")
        assert gone is not None and (gone.name, gone.bytes_up, gone.bytes_down, gone.requests) == ("", 0, 0, 0)
        assert store.device_of(f"{1:064x}") is None
        assert enrol(store, 1) == "board-1-2", "its updates are of the device before"

    def test_a_used_up_token_does_not_bring_a_removed_device_back(self, store: Store) -> None:
        """Its use is gone with it."""
        store.add_token(TOKEN, "", uses=1)
        enrol(store, 1)
        store.remove_device("board-1")

        with pytest.raises(TokenRefusedError, match="used up"):
            enrol(store, 1)

    def test_a_removed_device_that_was_revoked_stays_shut_out(self, store: Store) -> None:
        """Taking it out of the list is no pardon; allowing it is."""
        store.add_token(TOKEN, "", uses=9)
        enrol(store, 1)
        store.revoke_device("board-1"), store.remove_device("board-1")

        with pytest.raises(ShutOutError):
            enrol(store, 1, None)
        assert store.allow_device("board-1") and not store.allow_device("board-1")
        assert enrol(store, 1, None) == "board-1-2"


class TestCredentials:
    def test_both_are_valid_until_the_next_one_was_used(self, store: Store, clock: FakeClock) -> None:
        """Offered, offered again, offered another one; used once, the one before ends."""
        device = enrol(store, 1, None)
        clock.advance(RENEW_AFTER_S)
        for offered in ("b", "b", "c"):
            store.offer_credential(device, offered * 64)
            assert all(store.device_of(known) is not None for known in (f"{1:064x}", offered * 64))
        assert store.device_of("b" * 64) is None

        for _ in range(2):
            store.take_credential(device, "c" * 64)

        known = store.device_of("c" * 64)
        assert known is not None and known.credential_at == clock() and known.next_credential is None
        assert store.device_of(f"{1:064x}") is None
        former = store.formerly_of(f"{1:064x}")
        assert former is not None and former.device == device

    def test_none_is_taken_before_its_time_nor_twice(self, store: Store, clock: FakeClock) -> None:
        """A board cannot write to the disk as often as it likes, nor take another board's credential."""
        device, other = enrol(store, 1, None), enrol(store, 2, None)
        with pytest.raises(RenewalError, match="not to be renewed"):
            store.offer_credential(device, "b" * 64)
        clock.advance(RENEW_AFTER_S)
        store.offer_credential(device, "b" * 64)
        for taken in (f"{1:064x}", "b" * 64):
            with pytest.raises(RenewalError, match="known"):
                store.offer_credential(other, taken)

    def test_enrolling_again_ends_both(self, store: Store, clock: FakeClock) -> None:
        """A token is stronger than what a lost card holds."""
        device = enrol(store, 1, None)
        clock.advance(RENEW_AFTER_S)
        store.offer_credential(device, "b" * 64)

        enrol(store, 1, None, credential=9)

        assert store.device_of(f"{1:064x}") is None and store.device_of("b" * 64) is None


def test_the_history_of_versions_outlives_their_blobs(store: Store) -> None:
    """All digests stay, in order; where a server goes back, its history goes on from there."""
    store.add_version(1, "a" * 64)
    for number in (1, 2, 3):
        store.open_round(number, number)
        store.merge_round(number, "", number + 1, f"{number:x}" * 64, {})
    store.forget_versions(4)

    assert store.history() == ((1, "a" * 64), (2, "1" * 64), (3, "2" * 64), (4, "3" * 64))
    assert store.history(2, 1) == ((3, "2" * 64),)

    store.forget_versions(99)  # as after a newest version that was damaged
    store.open_round(4, 2)
    store.merge_round(4, "", 3, "f" * 64, {})
    assert store.history() == ((1, "a" * 64), (2, "1" * 64), (3, "f" * 64))


def test_a_round_never_closes_before_it_opened(store: Store, clock: FakeClock) -> None:
    """The clock was put back in between: the round took no time, instead of less than none."""
    store.open_round(1, 1), store.open_round(2, 1)
    clock.advance(-900)

    store.merge_round(1, "", 2, "a" * 64, {})
    store.abandon_round(2, "")

    assert [row.closed_at == row.opened_at for row in store.rounds()] == [True, True]


def test_a_database_of_before_tokens_ended_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    """Its boards stay, under credentials that are due; its tokens, which had no end, are revoked."""
    path, clock.now = tmp_path / "braid.db", 1.8e9
    store = Store(path, clock)
    store.add_token(TOKEN, "first", uses=5)
    enrol(store, 1)
    store.add_version(1, "a" * 64)
    store.close()
    raw = sqlite3.connect(path)
    raw.execute("DROP TABLE token_uses")
    raw.execute("DROP TABLE history")
    raw.execute(
        "CREATE TABLE old AS SELECT device, install_id, name, credential, revoked, has_left, enrolled_at, "
        "bytes_up, bytes_down FROM devices"
    )
    raw.execute("DROP TABLE devices")
    raw.execute("ALTER TABLE old RENAME TO devices")
    for column in ("uses", "expires_at"):
        raw.execute(f"ALTER TABLE tokens DROP COLUMN {column}")
    raw.execute("PRAGMA user_version = 2")
    raw.commit()
    raw.close()

    store = Store(path, clock)

    assert store.device_of(f"{1:064x}") is not None and store.history() == ((1, "a" * 64),)
    with pytest.raises(TokenRefusedError, match="revoked"):
        enrol(store, 2)
    store.offer_credential("board-1", "b" * 64)
    store.close()
