"""The watch over a target: what is a find, and that one find is told once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from braid_common.units import MIB
from fuzz import watch as module
from fuzz.contract import BrokenError, Judge, require
from fuzz.watch import Find, Watch


@pytest.fixture
def finds() -> list[Find]:
    return []


@pytest.fixture
def make(tmp_path: Path, finds: list[Find]) -> Callable[[Judge], Watch]:
    return lambda judge: Watch(judge, tmp_path / "found", lambda find, _: finds.append(find))


def test_an_exception_is_a_find_by_its_place(make: Callable[[Judge], Watch], finds: list[Find]) -> None:
    """The first input of each kind and place is kept, and the work goes on."""

    def check(data: bytes) -> str:
        if data.startswith(b"bad"):
            raise ValueError("what a reader let through")
        return "read"

    watch = make(Judge(check))
    for data in (b"good", b"bad 1", b"bad 2", b"good"):
        watch.once(data)

    assert [(find.kind, Path(find.file).read_bytes()) for find in finds] == [("ValueError", b"bad 1")]
    assert finds[0].where == "tests/fuzz/test_watch.py check"
    assert (watch.n_inputs, watch.n_finds, watch.outcomes["read"]) == (4, 1, 2)


def test_a_broken_promise_is_a_find_by_its_words(make: Callable[[Judge], Watch], finds: list[Find]) -> None:
    """Two promises of one check are two finds."""

    def check(data: bytes) -> str:
        require(data != b"1", "one promise")
        require(data != b"2", "another promise")
        return "kept"

    watch = make(Judge(check))
    for data in (b"1", b"2", b"1", b"3"):
        watch.once(data)

    assert [find.where for find in finds] == ["one promise", "another promise"]


def test_what_fails_between_inputs_is_a_find_of_the_last(make: Callable[[Judge], Watch], finds: list[Find]) -> None:
    """Such as a server that serves others no more."""

    def rest() -> None:
        raise BrokenError("hang", "nobody is served")

    make(Judge(lambda _: "sent", rest)).once(b"input")

    assert [(find.kind, Path(find.file).read_bytes()) for find in finds] == [("hang", b"input")]


@pytest.mark.parametrize(("times_s", "is_find"), [((2.0, 2.0, 2.0), True), ((2.0, 0.5), False), ((0.9,), False)])
def test_slow_is_what_is_slow_three_times(
    make: Callable[[Judge], Watch],
    finds: list[Find],
    monkeypatch: pytest.MonkeyPatch,
    times_s: tuple[float, ...],
    is_find: bool,
) -> None:
    """An input that was fast once has waited for the machine."""
    ticks = iter([at for second, took_s in enumerate(times_s) for at in (10.0 * second, 10.0 * second + took_s)])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))

    watch = make(Judge(lambda _: "read"))
    watch.once(b"input")

    assert [find.kind for find in finds] == ["slow"] * is_find
    assert watch.slowest_s == pytest.approx(min(times_s))
    assert next(ticks, None) is None


def test_memory_that_one_input_takes(
    make: Callable[[Judge], Watch], finds: list[Find], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What adds more than GROWTH_BYTES to the process's peak is a find; the first input may, which loads libraries."""
    peaks = iter([100 * MIB, 300 * MIB, 310 * MIB, 310 * MIB + module.GROWTH_BYTES + MIB])
    monkeypatch.setattr(module, "peak_bytes", lambda: next(peaks))

    watch = make(Judge(lambda _: "read"))
    for data in (b"1", b"2", b"3"):
        watch.once(data)

    assert [(find.kind, Path(find.file).read_bytes()) for find in finds] == [("memory", b"3")]
