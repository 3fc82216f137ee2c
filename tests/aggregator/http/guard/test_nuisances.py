"""Nuisances: counted by kind, told once a minute."""

from __future__ import annotations

import math

import pytest

from aggregator.http.guard import nuisances
from aggregator.http.guard.nuisances import Nuisance, Nuisances


def test_a_flood_is_one_line_a_minute() -> None:
    """With count, kind, how many sources, and the busiest of them."""
    counts, lines = Nuisances(), []
    for second in range(181):
        for number in range(100):
            counts.count(Nuisance.SILENT, f"192.0.2.{number}")
        counts.count(Nuisance.SILENT, "192.0.2.7")
        lines += list(counts.lines(1000.0 + second))

    assert len(lines) == 4
    assert lines[1] == ("6060 connections closed that made no request in time, from 100 sources, 120 from 192.0.2.7")


def test_at_the_end_all_is_told() -> None:
    """Whenever the last line was."""
    counts = Nuisances()
    counts.count(Nuisance.SILENT, "a")
    list(counts.lines(5.0))
    counts.count(Nuisance.SILENT, "a")

    assert len(list(counts.lines(math.inf))) == 1


def test_kinds_do_not_hide_each_other() -> None:
    counts = Nuisances()
    counts.count(Nuisance.SILENT, "a")
    assert len(list(counts.lines(0.0))) == 1
    counts.count(Nuisance.NOT_HTTP, "b")

    assert list(counts.lines(1.0)) == ["1 requests that were no HTTP, from b"]
    assert list(counts.lines(100.0)) == []


def test_failed_logins_have_a_line_for_each_source() -> None:
    """The busiest first, and the rest together: a thousand addresses must not write a thousand lines."""
    counts = Nuisances()
    for number in range(30):
        for _ in range(number + 1):
            counts.count(Nuisance.LOGIN, f"192.0.2.{number}")

    lines = list(counts.lines(0.0))

    assert len(lines) == 11 and lines[0] == "30 failed logins from 192.0.2.29"
    assert lines[-1] == f"{sum(range(21))} failed logins from 20 other addresses"


def test_memory_is_bounded_whatever_sources_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nuisances, "MAX_SOURCES", 10)
    counts = Nuisances()
    for number in range(1000):
        counts.count(Nuisance.SILENT, str(number))

    assert "990 from elsewhere" in next(iter(counts.lines(0.0)))


def test_totals_are_since_the_start() -> None:
    counts = Nuisances()
    counts.count(Nuisance.UNREAD, "a")
    list(counts.lines(0.0))
    counts.count(Nuisance.UNREAD, "a")

    assert {fact["kind"]: fact["count"] for fact in counts.totals() if fact["count"]} == {"unread": 2}
