"""Runs whose files could not be sent are refused when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.errors import ConfigError
from aggregator.merge.bases import random_basis
from aggregator.merge.optimisers import OPTIMISERS
from aggregator.merge.rules import RULES, Rule
from aggregator.merge.state import AdapterState, Factors, Moments, WeightState, encode_state, initial_state
from aggregator.merge.sums import Contribution
from aggregator.settings.config import RunConfig
from aggregator.settings.keys import template
from aggregator.settings.runfile import parse
from aggregator.settings.sizes import (
    SUMS_SHARE,
    check_sizes,
    memory_warning,
    merge_bytes,
    state_bytes,
    sums_bytes,
    update_bytes,
)
from braid_common.base.t5_config import FLAN_T5
from wire.checks import basis_rank
from wire.codec import encode
from wire.fields import Dtype
from wire.limits import MAX_MESSAGE_BYTES
from wire.manifest import t5_weights
from wire.messages import AdapterPart, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack, unpack

XL = FLAN_T5["flan-t5-xl"]
SHAPES = (Weight(name="tall", rows=30, columns=7), Weight(name="wide", rows=5, columns=20))
WEIGHTS = (Weight(name="𝄞" * 200, rows=30, columns=7), Weight(name="w", rows=5, columns=90))


def config(**values: object) -> RunConfig:
    given = {"model.path": "/base", "model.digest": "a" * 64}
    return parse(
        template({**given, **{key.replace("__", "."): value for key, value in values.items()}}), Path("run.toml")
    )


def _contribution(rule: Rule[Any], state: AdapterState, seed: int) -> Contribution:
    """Of a board that changed everything that it could."""
    rng = np.random.default_rng(seed)
    start = {part.name: _factors(part) for part in rule.cut(state, [3, 3], "fp32")} if rule.TRAITS.has_start else {}

    def strands(weight: Weight) -> Factors:
        b, a = (rng.standard_normal(shape).astype(np.float32) for shape in ((weight.rows, 3), (3, weight.columns)))
        return Factors(b, a)

    sketches = {w.name: strands(w).a for w in SHAPES} if rule.TRAITS.sketches else {}
    return Contribution(
        weight=1.0, strands={w.name: strands(w) for w in SHAPES}, start=start, sketches=sketches, trains="both"
    )


def _factors(part: AdapterPart) -> Factors:
    assert part.start_b is not None
    return Factors(unpack(part.start_b), unpack(part.basis))


def _held_bytes(held: object) -> int:
    """All arrays that are reachable."""
    if isinstance(held, np.ndarray):
        return held.nbytes
    if isinstance(held, Mapping):
        return sum(map(_held_bytes, held.values()))
    if isinstance(held, tuple):
        return sum(map(_held_bytes, held))
    if is_dataclass(held):
        return sum(_held_bytes(getattr(held, field.name)) for field in fields(held))
    return 0


def test_a_run_that_outgrows_a_message_is_refused_with_the_setting_to_lower() -> None:
    """FLAN-T5-xl, both halves: rank 64 does not fit into the server's fp32 state, rank 32 does."""
    weights = t5_weights(XL, "all")
    with pytest.raises(ConfigError, match="the adapter could take") as caught:
        check_sizes(config(merge__server_rank=64), weights)
    assert "merge.server_rank" in caught.value.hint and "512 MiB" in caught.value.message

    with pytest.raises(ConfigError, match="update could take") as caught:
        check_sizes(
            config(merge__rule="braid", merge__server_rank=1, merge__max_rank=80, train__upload="fp32"), weights
        )
    assert "merge.max_rank" in caught.value.hint

    check_sizes(config(merge__server_rank=32), weights)
    assert state_bytes(weights, 32, 16) < MAX_MESSAGE_BYTES


def test_squares_that_could_not_be_stored_are_refused_with_the_optimisers_that_fit() -> None:
    """FLAN-T5-xl's decoder: momentum fits, a number for every entry does not; nor does a single too large matrix."""
    weights = t5_weights(XL, "decoder")
    check_sizes(config(merge__server_rank=16, merge__max_rank=8, merge__optimiser="momentum"), weights)

    for those in (weights, (Weight(name="w", rows=8192, columns=8192),)):
        with pytest.raises(ConfigError, match="fedadam keeps a number for every entry") as caught:
            check_sizes(config(merge__server_rank=16, merge__max_rank=8, merge__optimiser="fedadam"), those)
        assert "none, momentum, nesterov" in caught.value.hint

    check_sizes(config(merge__optimiser="fedadam"), WEIGHTS)


@pytest.mark.parametrize("name", RULES)
def test_downloads_are_no_larger_than_was_said(name: str) -> None:
    """Of any rule, also where boards train more strands than the server's adapter keeps."""
    state = random_basis(initial_state(SHAPES), max_rank=5, seed=1)

    parts = RULES[name].cut(state, [5, 5], "fp32")

    assert sum(len(encode(part)) for part in parts) <= state_bytes(SHAPES, 1, 5, begun=RULES[name].TRAITS.has_start)


@pytest.mark.parametrize("name", RULES)
def test_sums_never_take_more_than_was_said(name: str) -> None:
    """Of any rule, after any number of boards that train everything at full rank."""
    rule, state = RULES[name], random_basis(initial_state(SHAPES), max_rank=3, seed=1)
    total, largest = None, 0
    for seed in range(40):
        total = rule.fold(total, _contribution(rule, state, seed))
        while (after := total.compacted()) is not total:
            total = after
        largest = max(largest, _held_bytes(total))

    assert 0 < largest <= sums_bytes(rule.TRAITS, SHAPES, 3)


def test_a_machine_that_may_be_too_small_for_the_sums_is_told_of_a_rule_that_fits() -> None:
    """FLAN-T5-xl's decoder on a server of 1 GiB, by a rule that sums every rank by itself; a larger one hears nothing,
    nor does a rule of smaller sums."""
    weights = t5_weights(XL, "decoder")
    needed = merge_bytes(RULES["rank-partitioned"].TRAITS, weights, 16)
    assert needed < sums_bytes(RULES["rank-partitioned"].TRAITS, weights, 16) / 50, "a group at a time"

    told = memory_warning(config(merge__rule="rank-partitioned"), weights, 1 << 30)

    assert told is not None and "merge.rule = rank-partitioned" in told and "take merge.rule = fedsvd" in told
    assert memory_warning(config(merge__rule="rank-partitioned"), weights, int(needed / SUMS_SHARE) + 1) is None
    assert all(memory_warning(config(merge__rule=rule), weights, 1 << 30) is None for rule in ("fedsvd", "weave"))


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(("server_rank", "max_rank"), [(1, 3), (8, 2), (200, 200)])
def test_no_state_is_larger_than_reckoned(server_rank: int, max_rank: int, optimiser: str) -> None:
    """The bound holds for the largest state that these ranks can lead to, and is not far above it."""
    one = OPTIMISERS[optimiser]
    states = {}
    for weight in WEIGHTS:
        rank, rows = basis_rank(weight, server_rank), basis_rank(weight, max_rank)
        b, a = np.ones((weight.rows, rank), np.float32), np.ones((rank, weight.columns), np.float32)
        second = np.ones((weight.rows, weight.columns), np.float32) if one.squares else None
        states[weight.name] = WeightState(
            frozen_b=b,
            frozen_a=a,
            basis=np.ones((rows, weight.columns), np.float32),
            values=np.full(rows, 1e300),
            score=0.1,
            moments=Moments(Factors(b, a), second) if one.beta else None,
        )
    size = len(encode_state(AdapterState(version=100_000, weights=states, ranked_at=100_000)))

    assert size <= state_bytes(WEIGHTS, server_rank, max_rank, one) < size + 70_000


@pytest.mark.parametrize("trains_a", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8", "int4"])
def test_no_update_is_larger_than_reckoned(dtype: Dtype, trains_a: bool) -> None:
    """The same for what a board sends, in every number format, with and without A."""
    parts = tuple(
        UpdatePart(
            name=w.name,
            b=pack(np.ones((w.rows, basis_rank(w, 6)), np.float32), dtype),
            a=pack(np.ones((basis_rank(w, 6), w.columns), np.float32), dtype) if trains_a else None,
            sketch=pack(np.ones((basis_rank(w, 6), w.columns), np.float32), dtype),
        )
        for w in WEIGHTS
    )
    update = Update(
        protocol=1, run_id="r" * 200, round=9, version=9, manifest="0" * 64, n_examples=1_000_000, parts=parts
    )
    size = len(encode(update))

    assert size <= update_bytes(WEIGHTS, 6, dtype, trains_a) < size + 70_000
