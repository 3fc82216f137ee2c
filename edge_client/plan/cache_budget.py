"""Disk for the frozen encoder's output, and in which dtype a round's share of it fits there.

With `scope = "decoder"` the encoder's output is computed once per example and kept on disk. Per token it takes d_model
numbers: 2 bytes each in bf16; in int8 1 byte each and a scale.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_client.errors import disk_errors
from edge_client.host.board import parse_size
from edge_client.jobs.messages import CacheDtype
from wire.messages import RunInfo

DEFAULT_LIMIT_BYTES = 4 << 30
"""Room for some 5,400 texts of 512 tokens in bf16 at FLAN-T5-base's width; more than most boards' data needs."""

FREE_SHARE = 0.25
"""Part of the free disk that is taken unasked: the board has other programs, and its log files grow."""

ENTRY_BYTES = 64
"""Header of one text's entry (prefix_cache.HEADER_BYTES, whose module imports torch; a test holds them equal)."""


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """`limit_bytes`: what the cache may take, 0 for none. `n_train`: the board's training examples, None where that is
    not known, which counts as plenty. `n_evaluated`: held-out examples that are looked at in every round."""

    limit_bytes: int = 0
    n_train: int | None = None
    n_evaluated: int = 0


NO_ROOM = CacheRoom()


def cache_dtype(run: RunInfo, config: Mapping[str, Any], room: CacheRoom) -> CacheDtype:
    """How a run's encoder output is kept: in bf16 if a round's distinct examples, each as long as the run allows, then
    fit, else in int8, "none" where not even that fits, or where the encoder is trained. `config`: the base's."""
    if run.settings.scope != "decoder" or not room.limit_bytes:
        return "none"
    n_examples = distinct_examples(run, room)
    dtypes: tuple[CacheDtype, ...] = ("bf16", "int8")
    for dtype in dtypes:
        size_bytes = entry_bytes(run.settings.max_source_tokens, int(config["d_model"]), dtype)
        if n_examples * size_bytes <= room.limit_bytes:
            return dtype
    return "none"


def entry_bytes(n_tokens: int, d_model: int, dtype: CacheDtype) -> int:
    """Size on disk of one text's output: a header, and per token d_model values, in int8 with one fp32 scale."""
    return ENTRY_BYTES + n_tokens * (2 * d_model if dtype == "bf16" else d_model + 4)


def parse_cache(text: str) -> int | None:
    """Bytes given with --cache; 0 keeps nothing, None is no choice. Raises ConfigError for what is no size."""
    if not text.strip():
        return None
    return 0 if text.strip() == "0" else parse_size(text, "cache")


def default_limit(folder: Path, cache: Path) -> int:
    """DEFAULT_LIMIT_BYTES, or FREE_SHARE of the disk that `folder` is on, if that is less.

    What `cache` holds already counts as free, so that the limit stays what it was while the cache fills. Raises
    DiskError.
    """
    with disk_errors(folder):
        while not folder.exists():
            folder = folder.parent
        disk = os.statvfs(folder)
        return min(DEFAULT_LIMIT_BYTES, int(FREE_SHARE * (disk.f_bavail * disk.f_frsize + _size_bytes(cache))))


def distinct_examples(run: RunInfo, room: CacheRoom) -> int:
    """Examples that a round looks at."""
    n_places = run.settings.local_steps * run.settings.batch
    return room.n_evaluated + (n_places if room.n_train is None else min(n_places, room.n_train))


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
