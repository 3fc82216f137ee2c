"""Sizes and times as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.units import parse_duration, parse_size, printable, show_seconds, show_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("500MiB", 500 << 20),
        ("1.5GiB", 3 << 29),
        ("800M", 800_000_000),
        ("800 mb", 800_000_000),
        ("2g", 2_000_000_000),
        ("1048576", 1 << 20),
        ("7B", 7),
        ("4KiB", 4096),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int) -> None:
    """Binary and decimal units, any case, fractions."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1GiB", "1.5.0G", "12 parsecs", "1e9", "0", "inf", "9999999999TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The sentence shows what was typed, and which size it should be."""
    with pytest.raises(ValueError, match="cache size") as caught:
        parse_size(text, "cache")

    assert repr(text) in str(caught.value)


@given(st.integers(0, 1 << 44))
def test_a_shown_size_reads_back_within_a_percent(size_bytes: int) -> None:
    """show_size and parse_size agree."""
    shown = show_size(size_bytes)

    if size_bytes:
        assert abs(parse_size(shown) - size_bytes) <= 0.0051 * size_bytes + 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10min", 600), ("10 min", 600), ("1.5h", 5400), ("2m", 120), ("30SEC", 30)]
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    """Seconds, minutes, hours."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0s", "0min", "-1min", "10", "abc", "min", "1e3s", "nanmin", "9999999h", "5MB"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Also zero, a bare number and more than a year; the sentence shows what was typed."""
    with pytest.raises(ValueError, match="duration") as caught:
        parse_duration(text)

    assert repr(text) in str(caught.value)


def test_durations_are_shown_in_units_that_people_use() -> None:
    """Two units from a minute on, three figures below."""
    seconds = (0.0, 1.2e-5, 0.0404, 0.4, 1.0, 12.345, 42, 100, 200, 840, 7500, 90_000)

    assert [show_seconds(value) for value in seconds] == [
        "0 s",
        "12 µs",
        "40.4 ms",
        "400 ms",
        "1 s",
        "12.3 s",
        "42 s",
        "1 min 40 s",
        "3 min 20 s",
        "14 min 0 s",
        "2 h 5 min",
        "1 d 1 h",
    ]


def test_others_words_cannot_move_the_cursor() -> None:
    """Control characters become question marks; letters of any language stay."""
    assert printable("naïve\x1b[2J\n語") == "naïve?[2J?語"
