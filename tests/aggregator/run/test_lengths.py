"""Lengths that a run chooses by its first boards: they hold what they promise, and never depend on luck."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.run.lengths import (
    HELD_PERCENT,
    LONGEST,
    STEPS,
    ChosenLengths,
    Side,
    choose,
    length_that_holds,
    share_cut,
    warnings,
)
from aggregator.settings.config import RoundsSection
from aggregator.settings.keys import template
from aggregator.settings.runfile import parse
from wire.default_run import DEFAULT_SETTINGS
from wire.limits import MAX_TEXT_TOKENS
from wire.run import TrainSettings
from wire.text_lengths import PERCENTS, TextLengths, quantiles

SIDES: tuple[Side, ...] = ("source", "target")
FLEETS = st.lists(st.lists(st.integers(1, 2000), min_size=1, max_size=120), min_size=1, max_size=4)


def rules(min_devices: int = 2) -> RoundsSection:
    values = {"model.path": "/base", "model.digest": "a" * 64, "rounds.min_devices": min_devices, "rounds.quorum": 1}
    return parse(template(values), Path("run.toml")).rounds


def with_lengths(source: int, target: int) -> TrainSettings:
    return msgspec.structs.replace(DEFAULT_SETTINGS, max_source_tokens=source, max_target_tokens=target)


def report(sources: list[int], targets: list[int] | None = None, limit: int = 512) -> TextLengths:
    """What a board with texts of these lengths says."""
    targets = sources if targets is None else targets
    return TextLengths(
        n_examples=len(sources),
        n_measured=len(sources),
        source_tokens=quantiles(sources),
        target_tokens=quantiles(targets),
        max_source_tokens=limit,
        max_target_tokens=limit,
        sources_cut=sum(length > limit for length in sources) / len(sources),
        targets_cut=sum(length > limit for length in targets) / len(targets),
    )


@given(FLEETS)
def test_the_length_holds_what_it_promises(fleet: list[list[int]]) -> None:
    """Of all boards' texts together at least 95 % are no longer; the length is a multiple, and no needless one."""
    reports = [report(lengths) for lengths in fleet]
    pooled = [length for lengths in fleet for length in lengths]

    for side in SIDES:
        chosen = length_that_holds(reports, side)
        assert 100 * sum(length <= chosen for length in pooled) >= HELD_PERCENT * len(pooled)
        assert chosen % STEPS[side] == 0 and chosen < max(pooled) + STEPS[side]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=300))
def test_of_one_board_it_is_the_smallest_that_does(lengths: list[int]) -> None:
    """One step shorter would hold less than 95 %."""
    for side in SIDES:
        shorter = length_that_holds([report(lengths)], side) - STEPS[side]
        assert 100 * sum(length <= shorter for length in lengths) < HELD_PERCENT * len(lengths)


@given(FLEETS, st.data())
def test_longer_texts_never_give_shorter_lengths(fleet: list[list[int]], data: st.DataObject) -> None:
    """If one board's texts grow, what is chosen stays or grows."""
    before = [report(lengths) for lengths in fleet]
    i = data.draw(st.integers(0, len(fleet) - 1))
    grown = [length + data.draw(st.integers(0, 500)) for length in fleet[i]]
    after = [*before[:i], report(grown), *before[i + 1 :]]

    for side in SIDES:
        assert length_that_holds(after, side) >= length_that_holds(before, side)


@given(FLEETS)
def test_what_is_chosen_is_bounded(fleet: list[list[int]]) -> None:
    """Whatever boards say, sources and targets are no longer than the caps, and the planner never sees a 0."""
    reports = [report(lengths) for lengths in fleet]

    chosen = choose(reports, 0.0, rules(min_devices=len(reports)), 0.0).lengths

    assert chosen is not None
    assert 0 < chosen.max_source_tokens <= LONGEST["source"] and 0 < chosen.max_target_tokens <= LONGEST["target"]
    assert ChosenLengths.decode(chosen.encode()) == chosen
    assert choose(list(reversed(reports)), 0.0, rules(len(reports)), 0.0).lengths == chosen


def test_lengths_wait_for_enough_boards_or_the_deadline() -> None:
    """No board: nothing to wait for. One of two: until profile_deadline_s after the first. Then by what is there."""
    two = rules(min_devices=2)
    short, long = report([20] * 10), report([300] * 10)

    assert choose([], None, two, 5.0) == choose([], None, two, 1e9)
    waiting = choose([short], 100.0, two, 101.0)
    assert waiting.lengths is None and waiting.wake_s == 100.0 + two.profile_deadline_s
    assert choose([short], 100.0, two, waiting.wake_s).lengths == ChosenLengths(32, 24)
    assert choose([short, long], 100.0, two, 101.0).lengths == ChosenLengths(320, LONGEST["target"])
    assert choose([short], 100.0, rules(min_devices=1), 100.0).lengths == ChosenLengths(32, 24)


def test_a_small_boards_long_texts_do_not_decide() -> None:
    """Boards count by their examples: three long texts beside a thousand short ones are the twentieth that is cut."""
    many, few = report([40] * 1000), report([900] * 3)

    assert length_that_holds([many, few], "source") == 64
    assert length_that_holds([report([40] * 50), report([900] * 3)], "source") == 928


def test_open_lengths_alone_are_filled() -> None:
    """What run.toml names stays."""
    open_targets = with_lengths(192, 0)

    assert ChosenLengths(320, 48).fill(open_targets) == with_lengths(192, 48)


@pytest.mark.parametrize(("limit", "n_warned"), [(64, 2), (200, 0), (100, 0)])
def test_a_run_that_cuts_most_is_told_of(limit: int, n_warned: int) -> None:
    """The sentence has the share, the limit and the number to set; exactly half is not most."""
    reports = [report([100] * 6 + [150] * 6, limit=limit)]

    said = warnings(reports, with_lengths(limit, limit))

    assert len(said) == n_warned
    for side, sentence in said.items():
        assert "100%" in sentence and f"train.max_{side}_tokens = {limit}" in sentence
        assert f"set it to {length_that_holds(reports, side)}" in sentence


def test_open_lengths_are_not_warned_of() -> None:
    """Before there is a limit nothing is cut by it."""
    assert warnings([report([5000] * 3)], with_lengths(0, 0)) == {}
    assert warnings([], with_lengths(8, 8)) == {}


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=100), st.integers(8, 2000), st.integers(8, 2000))
def test_a_share_measured_under_another_limit_is_an_upper_bound(lengths: list[int], limit: int, other: int) -> None:
    """Under its own limit a board's share is exact; under another one the fleet never looks better than it is."""
    exact = sum(length > limit for length in lengths) / len(lengths)

    assert share_cut([report(lengths, limit=limit)], "source", limit) == exact
    assert share_cut([report(lengths, limit=other)], "source", limit) >= exact - 1e-12


def test_texts_beyond_everything_are_held_by_the_longest_run() -> None:
    """A fleet of books: the number to set is the longest that a run may have."""
    book = replace(report([2000] * 4), source_tokens=(MAX_TEXT_TOKENS,) * len(PERCENTS))

    assert length_that_holds([book], "source") == MAX_TEXT_TOKENS
