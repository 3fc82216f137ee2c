"""Allowances as people type them, and the disk that is taken where nothing was typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client.agent.allowances import (
    DEFAULT_CACHE_BYTES,
    FREE_SHARE,
    default_cache_bytes,
    parse_cache,
    parse_limits,
    parse_memory,
)
from edge_client.errors import ConfigError


def test_memory_is_a_size_or_nothing() -> None:
    """The hint of a refusal shows what is understood."""
    assert (parse_memory(""), parse_memory("500MiB")) == (None, 500 << 20)
    with pytest.raises(ConfigError, match="memory size") as caught:
        parse_memory("12 parsecs")
    assert "500MiB" in caught.value.hint


@pytest.mark.parametrize(("time", "traffic"), [("0min", ""), ("abc", ""), ("", "0"), ("", "-1MB"), ("", "5 apples")])
def test_limits_that_are_none_are_refused(time: str, traffic: str) -> None:
    """Whichever of the two it is."""
    with pytest.raises(ConfigError):
        parse_limits(time, traffic)


def test_no_limit_is_none() -> None:
    """Nothing typed, or blanks."""
    limits = parse_limits("", "  ")

    assert (limits.round_s, limits.round_bytes, limits.gflops) == (None, None, {})
    assert parse_limits("10min", "5MB").round_bytes == 5_000_000


def test_the_hint_says_how_to_write_a_duration() -> None:
    """With an example."""
    with pytest.raises(ConfigError, match="'10' is not a duration") as caught:
        parse_limits("10", "")
    assert "10min" in caught.value.hint


@pytest.mark.parametrize(("text", "limit_bytes"), [("", None), (" ", None), ("0", 0), ("2GiB", 2 << 30)])
def test_the_option_is_a_size_or_nothing(text: str, limit_bytes: int | None) -> None:
    """Left out, zero, and sizes as --memory takes them."""
    assert parse_cache(text) == limit_bytes


def test_what_is_no_size_is_a_config_error() -> None:
    """The sentence says which size is meant."""
    with pytest.raises(ConfigError, match="cache size"):
        parse_cache("plenty")


def disk(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    class Disk:
        f_bavail, f_frsize = free_bytes // 512, 512

    monkeypatch.setattr("edge_client.agent.allowances.os.statvfs", lambda path: Disk)


def test_the_default_leaves_most_of_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a small disk, a fixed limit on a large one; the folder need not be there yet."""
    folder = tmp_path / "state" / "of" / "nobody"
    disk(monkeypatch, 1 << 30)
    assert default_cache_bytes(folder, folder / "cache") == int(FREE_SHARE * (1 << 30))

    disk(monkeypatch, 1 << 40)
    assert default_cache_bytes(folder, folder / "cache") == DEFAULT_CACHE_BYTES


def test_the_default_stays_while_the_cache_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache took from the free space does not lower the limit, or each start would shrink it."""
    cache = tmp_path / "cache"
    (cache / "ab").mkdir(parents=True)
    disk(monkeypatch, 1 << 20)
    before = default_cache_bytes(tmp_path, cache)

    (cache / "ab" / "entry").write_bytes(bytes(1 << 18))
    disk(monkeypatch, (1 << 20) - (1 << 18))

    assert default_cache_bytes(tmp_path, cache) == before
