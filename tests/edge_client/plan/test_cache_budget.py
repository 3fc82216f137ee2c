"""How much disk the encoder's output may take, and in which dtype it is kept there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.errors import ConfigError
from edge_client.jobs.messages import CacheDtype
from edge_client.plan.cache_budget import (
    DEFAULT_LIMIT_BYTES,
    ENTRY_BYTES,
    FREE_SHARE,
    CacheRoom,
    cache_dtype,
    default_limit,
    entry_bytes,
    parse_cache,
)
from tests.fakes.runs import SMALL_T5, run_of
from wire.messages import RunInfo, Scope

CONFIG = {**SMALL_T5, "d_model": 96}
EXAMPLE_BYTES = ENTRY_BYTES + 40 * 96 * 2
"""Of one text in bf16."""


def make_run(scope: Scope = "decoder") -> RunInfo:
    """A round looks at 60 examples of 40 tokens."""
    return run_of(CONFIG, {"scope": scope, "batch": 12, "micro_batch": 4, "local_steps": 5, "max_source_tokens": 40})


@pytest.mark.parametrize(
    ("limit_bytes", "n_examples", "dtype"),
    [
        (60 * EXAMPLE_BYTES, 1000, "bf16"),
        (60 * EXAMPLE_BYTES - 1, 1000, "int8"),
        (60 * EXAMPLE_BYTES - 1, None, "int8"),
        (60 * EXAMPLE_BYTES // 2, 1000, "none"),
        (60 * EXAMPLE_BYTES // 2, 30, "bf16"),
        (0, 1, "none"),
    ],
)
def test_a_rounds_examples_decide_the_dtype(limit_bytes: int, n_examples: int | None, dtype: str) -> None:
    """bf16 if they fit, int8 with its scales if not, nothing where even that is too much or nothing was given."""
    assert cache_dtype(make_run(), CONFIG, CacheRoom(limit_bytes, n_examples)) == dtype


def test_held_out_examples_need_room_too() -> None:
    """They are evaluated in every round, so they are never evicted for training examples."""
    room = CacheRoom(60 * EXAMPLE_BYTES, n_train=50, n_evaluated=10)

    assert cache_dtype(make_run(), CONFIG, room) == "bf16"
    assert cache_dtype(make_run(), CONFIG, replace(room, n_evaluated=11)) == "int8"


@pytest.mark.slow
def test_an_entrys_size_is_the_engines() -> None:
    """Written twice, because the engine's module imports torch."""
    from edge_client.engines.lean.encoder_cache import store

    dtypes: tuple[CacheDtype, ...] = ("bf16", "int8")
    for dtype in dtypes:
        assert entry_bytes(7, 96, dtype) == store.entry_bytes(7, 96, dtype)


def test_an_encoder_that_is_trained_is_never_cached() -> None:
    """Its output changes with every step."""
    assert cache_dtype(make_run("all"), CONFIG, CacheRoom(1 << 40, 10)) == "none"


@given(st.integers(0, 1 << 24), st.integers(0, 1 << 24), st.integers(1, 100))
def test_more_room_never_means_fewer_bits(one: int, other: int, n_examples: int) -> None:
    """The dtypes are ordered as the limits are."""
    bits = {"none": 0, "int8": 8, "bf16": 16}
    small, large = (cache_dtype(make_run(), CONFIG, CacheRoom(n, n_examples)) for n in sorted((one, other)))

    assert bits[small] <= bits[large]


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

    monkeypatch.setattr("edge_client.plan.cache_budget.os.statvfs", lambda path: Disk)


def test_the_default_leaves_most_of_the_disk_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a small disk, a fixed limit on a large one; the folder need not be there yet."""
    folder = tmp_path / "state" / "of" / "nobody"
    disk(monkeypatch, 1 << 30)
    assert default_limit(folder, folder / "cache") == int(FREE_SHARE * (1 << 30))

    disk(monkeypatch, 1 << 40)
    assert default_limit(folder, folder / "cache") == DEFAULT_LIMIT_BYTES


def test_the_default_stays_while_the_cache_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the cache took from the free space does not lower the limit, or each start would shrink it."""
    cache = tmp_path / "cache"
    (cache / "ab").mkdir(parents=True)
    disk(monkeypatch, 1 << 20)
    before = default_limit(tmp_path, cache)

    (cache / "ab" / "entry").write_bytes(bytes(1 << 18))
    disk(monkeypatch, (1 << 20) - (1 << 18))

    assert default_limit(tmp_path, cache) == before


def test_config_is_the_only_thing_read_of_a_base() -> None:
    """d_model alone decides, so that a plan needs no download."""
    assert cache_dtype(make_run(), {"d_model": 96}, CacheRoom(1 << 30, 10)) == "bf16"
