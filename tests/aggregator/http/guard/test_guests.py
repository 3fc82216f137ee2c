"""The guest book: who has to go when there is no room."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from aggregator.http.guard.guests import Guest, Guests, address_key
from aggregator.http.guard.limits import Limits

LIMITS = replace(Limits(), connections=20, strangers=8, per_address=3, per_known_address=5, per_caller=2, header_s=10.0)


@pytest.fixture
def guests() -> Guests:
    return Guests(LIMITS)


def arrive(guests: Guests, address: str, now: float = 0.0) -> tuple[Guest, list[Guest]]:
    guest = Guest(address)
    return guest, guests.arrive(guest, now)


def test_an_address_makes_room_for_itself(guests: Guests) -> None:
    """Its oldest connection without a credential goes, whoever else is there."""
    first, *_ = [arrive(guests, "a")[0] for _ in range(3)]
    arrive(guests, "b")

    _, leaving = arrive(guests, "a")

    assert leaving == [first] and len(guests) == 4


def test_a_fleet_that_joins_at_one_instant_makes_no_room_for_itself() -> None:
    """A thousand boards behind one router, none of which has been heard yet."""
    guests = Guests(Limits())

    assert [leaving for _ in range(1000) if (leaving := arrive(guests, "home")[1])] == []
    assert len(guests) == 1000


def test_strangers_leave_the_reserve_to_known_boards(guests: Guests) -> None:
    """However many addresses strangers have, they displace each other; a board's address has room all the same."""
    board, _ = arrive(guests, "home")
    guests.show_credential(board, "ada")
    strangers = [arrive(guests, f"s{number}") for number in range(30)]

    assert len(guests) == 1 + LIMITS.strangers
    assert strangers[-1][1] == [strangers[-1 - LIMITS.strangers][0]]
    for _ in range(LIMITS.per_known_address):
        assert arrive(guests, "home")[1] == []


def test_nobody_who_has_shown_a_credential_makes_room_for_a_stranger(guests: Guests) -> None:
    """A full house refuses the newcomer; a stranger in it goes before."""
    for number in range(LIMITS.connections - 1):
        guests.show_credential(arrive(guests, f"home{number}")[0], f"board{number}")
    stranger, _ = arrive(guests, "home1")

    newcomer, leaving = arrive(guests, "home2")
    assert leaving == [stranger]
    guests.show_credential(newcomer, "another")
    last, leaving = arrive(guests, "home3")
    assert leaving == [last] and len(guests) == LIMITS.connections


def test_one_caller_has_few_connections(guests: Guests) -> None:
    """The oldest goes; those of others stay."""
    first, second, third = (arrive(guests, "home")[0] for _ in range(3))
    assert guests.show_credential(first, "ada") == guests.show_credential(second, "ada") == []
    guests.show_credential(third, "bo")

    fourth, _ = arrive(guests, "home")

    assert guests.show_credential(fourth, "ada") == [first]
    assert guests.show_credential(fourth, "ada") == []


def test_a_connection_may_carry_calls_of_several_boards(guests: Guests) -> None:
    """As that of a proxy does: it is counted once, as the last caller's."""
    shared, _ = arrive(guests, "proxy")
    for number in range(10):
        assert guests.show_credential(shared, f"board{number}") == []

    assert len(guests) == 1
    guests.leave(shared)
    assert len(guests) == 0


def test_whoever_says_nothing_in_time_has_to_go(guests: Guests) -> None:
    """Those who are at work, or have shown a credential, stay; after an answer the time begins again."""
    silent, busy, known = (arrive(guests, address, 0.0)[0] for address in "abc")
    guests.begin(busy)
    guests.show_credential(known, "ada")

    assert guests.overdue(9.9) == [] and guests.overdue(10.0) == [silent]
    guests.end(busy, 11.0)
    assert guests.overdue(20.9) == [] and guests.overdue(21.0) == [busy]
    assert guests.overdue(1e9) == [] and len(guests) == 1


def test_a_guest_that_is_gone_changes_nothing(guests: Guests) -> None:
    """A connection that broke while its call was at work."""
    guest, _ = arrive(guests, "a")
    guests.leave(guest)

    guests.leave(guest)
    guests.end(guest, 5.0)
    assert guests.show_credential(guest, "ada") == []
    assert len(guests) == 0 and guests.overdue(1e9) == []


@pytest.mark.parametrize("seed", range(20))
def test_the_book_is_right_after_whatever_happens(seed: int) -> None:
    """Nobody is counted twice or forgotten, no limit is exceeded, and whoever leaves leaves nothing behind."""
    drawn, guests, here, now = random.Random(seed), Guests(LIMITS), set[Guest](), 0.0
    for _ in range(600):
        now += drawn.random() * 3
        what = drawn.choice(["arrive", "arrive", "leave", "show", "begin", "end", "overdue"])
        one = drawn.choice(sorted(here, key=id)) if here else None
        if what == "arrive":
            guest, leaving = arrive(guests, drawn.choice("abcdefgh"), now)
            here = (here | {guest}) - set(leaving)
        elif what == "overdue":
            here -= set(guests.overdue(now))
        elif one is not None and what == "leave":
            guests.leave(one)
            here.discard(one)
        elif one is not None and what == "show":
            here -= set(guests.show_credential(one, drawn.choice(["ada", "bo", "cyd"])))
        elif one is not None and what == "begin":
            guests.begin(one)
        elif one is not None:
            guests.end(one, now)
        assert len(guests) == len(here) <= LIMITS.connections
        assert len(guests._strangers) <= LIMITS.strangers
        assert all(len(mine) <= LIMITS.per_caller for mine in guests._by_caller.values())

    for guest in here:
        guests.leave(guest)
    assert not (len(guests) or guests._by_address or guests._by_caller or guests._waiting)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "?"),
        ("@socket", "@socket"),
    ],
)
def test_an_address_is_a_whole_ipv6_network(host: str | None, key: str) -> None:
    assert address_key(host) == key
