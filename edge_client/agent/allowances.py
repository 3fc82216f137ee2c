"""Allowances that people type: memory, disk for the cache, and the time and traffic of a round."""

from __future__ import annotations

import os
from pathlib import Path

from braid_common.units import DURATION_FORMS, SIZE_FORMS, parse_duration, parse_size
from edge_client.errors import ConfigError, disk_errors
from edge_client.plan.round_cost import RoundLimits

DEFAULT_CACHE_BYTES = 4 << 30
"""Disk for some 5,400 texts of 512 tokens in bf16 at FLAN-T5-base's width; more than most boards' data needs."""

FREE_SHARE = 0.25
"""Part of the free disk that is taken unasked: the board has other programs, and its log files grow."""


def parse_memory(text: str) -> int | None:
    """Bytes given with --memory; None where nothing was. Raises ConfigError for what is no size."""
    return _size(text, "memory") if text.strip() else None


def parse_cache(text: str) -> int | None:
    """Bytes given with --cache; 0 keeps nothing, None is no choice. Raises ConfigError for what is no size."""
    if not text.strip():
        return None
    return 0 if text.strip() == "0" else _size(text, "cache")


def parse_limits(round_time: str, round_traffic: str) -> RoundLimits:
    """Limits given with --round-time and --round-traffic, "" for none; of a board whose speed is not known yet. Raises
    ConfigError."""
    return RoundLimits(
        round_s=_duration(round_time) if round_time.strip() else None,
        round_bytes=_size(round_traffic, "traffic") if round_traffic.strip() else None,
    )


def default_cache_bytes(folder: Path, cache: Path) -> int:
    """DEFAULT_CACHE_BYTES, or FREE_SHARE of the disk that `folder` is on, if that is less.

    What `cache` holds already counts as free, so that the limit stays what it was while the cache fills. Raises
    DiskError.
    """
    with disk_errors(folder):
        while not folder.exists():
            folder = folder.parent
        disk = os.statvfs(folder)
        return min(DEFAULT_CACHE_BYTES, int(FREE_SHARE * (disk.f_bavail * disk.f_frsize + _size_of(cache))))


def _size(text: str, what: str) -> int:
    try:
        return parse_size(text, what)
    except ValueError as error:
        raise ConfigError(str(error), f"write it as {SIZE_FORMS}") from error


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(str(error), f"write it with its unit, as {DURATION_FORMS}") from error


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
