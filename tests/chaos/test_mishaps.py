"""Mishaps: drawn by seed, every kind in turn, and again where nobody met one."""

from __future__ import annotations

import pytest

from chaos.mishaps import NAMED, SIDES, DiskTrouble, KilledAtCall, Mishaps, Side, names_of


@pytest.mark.parametrize("side", SIDES)
def test_every_kind_comes_in_turn(side: Side) -> None:
    mishaps = Mishaps("a", side)

    found = [mishaps.next().name for _ in names_of(side)]

    assert sorted(found) == sorted(names_of(side))


def test_equal_seeds_deal_equal_mishaps() -> None:
    def dealt(seed: str) -> list[object]:
        mishaps = Mishaps(seed, "board")
        return [(mishaps.next(), mishaps.choice(("ada", "bo")), mishaps.uniform(0, 2)) for _ in range(30)]

    assert dealt("a") == dealt("a") != dealt("b")


@pytest.mark.parametrize("side", SIDES)
def test_every_named_call_comes_in_turn(side: Side) -> None:
    mishaps, found = Mishaps("a", side), set()
    for _ in range(len(NAMED[side]) * len(names_of(side))):
        mishap = mishaps.next()
        if isinstance(mishap, KilledAtCall) and mishap.is_named:
            found.add((*mishap.calls, mishap.path))
    assert found == set(NAMED[side])


def test_one_that_nobody_met_comes_again() -> None:
    """Before the kinds begin anew."""
    mishaps = Mishaps("a", "server")
    unmet = mishaps.next()
    mishaps.put_back(unmet)
    rest = [mishaps.next() for _ in names_of("server")]

    assert rest[-1] == unmet


def test_a_file_system_is_read_only_as_a_whole() -> None:
    """Of a disk that is full or failing, some calls may go well."""
    mishaps = Mishaps("a", "server")
    troubles = [mishap for mishap in (mishaps.next() for _ in range(200)) if isinstance(mishap, DiskTrouble)]

    assert {trouble.chance for trouble in troubles if trouble.error == "EROFS"} == {1.0}
    assert len({trouble.chance for trouble in troubles if trouble.error == "EIO"}) > 1
