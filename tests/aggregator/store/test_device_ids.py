"""Device ids: readable, unique in a run, and the same in every run of the same names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.store.device_ids import MAX_SLUG_CHARS, device_id
from aggregator.store.store import Store

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)


def enrolled(names: list[str]) -> dict[str, str]:
    """Name → id after enrolling in this order."""
    store = Store(None)
    try:
        return {name: store.enrol(f"{number:032x}", name, f"{number:064x}").device for number, name in enumerate(names)}
    finally:
        store.close()


def test_a_plain_name_is_the_id() -> None:
    """People read ids in logs; the second board of a name gets a number."""
    assert device_id("nano", ()) == "nano"
    assert device_id("nano", ("nano",)) == "nano-2"
    assert device_id("nano", ("nano", "nano-2")) == "nano-3"
    assert re.fullmatch(r"pi-4-im-bad-[0-9a-f]{6}", device_id("Pi 4 (im Bad)", ()))


@given(NAMES, st.integers(0, 3))
def test_every_name_gives_an_id_that_is_safe_in_files_and_headers(name: str, others: int) -> None:
    """Whatever a board calls itself, its id is short, lower-case ASCII, and not taken."""
    taken: list[str] = []
    for _ in range(others + 1):
        found = device_id(name, taken)
        assert re.fullmatch(r"[0-9a-z]+(-[0-9a-z]+)*", found) and len(found) <= MAX_SLUG_CHARS + 9
        assert found not in taken
        taken.append(found)


@pytest.mark.slow
@settings(deadline=None)  # on a busy machine an example took 320 ms
@given(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.randoms())
def test_ids_do_not_depend_on_the_order_of_enrolment(names: list[str], random: object) -> None:
    """Boards draw their data order from their id: the same names must give the same run, whoever comes first."""
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert enrolled(names) == enrolled(shuffled)


def test_names_without_a_letter_and_long_ones_are_told_apart() -> None:
    """Nothing left, or all alike in what is kept: the hash tells them apart."""
    names = ["测试", "开发", "!!!", "Nano", "nano", "NANO", "x" * 199, "x" * 200]

    assert len(set(enrolled(names).values())) == len(names)
