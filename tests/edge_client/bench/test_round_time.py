"""The traffic that granularity is reckoned with is that of the real messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.t5_config import T5Config
from edge_client.bench.request import ranks_of
from edge_client.bench.round_time import SERVER_RANK, UPLOAD, Link, Traffic, granularity, round_traffic
from wire.checks import basis_rank
from wire.codec import encode
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Adapter, AdapterPart, Dtype, Tensor, Update, UpdatePart
from wire.tensors import pack

HEADER_BYTES = 400
"""More than a weight's name, shapes and keys take in a message."""


def zeros(rows: int, columns: int, dtype: Dtype) -> Tensor:
    return pack(np.zeros((rows, columns)), dtype)


@pytest.mark.parametrize("upload", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("rank", [3, 20])
def test_the_bytes_are_those_of_the_messages(upload: Dtype, rank: int, config: dict[str, Any]) -> None:
    """Less only what names and shapes take: the adapter down, B and A up."""
    weights = t5_weights(T5Config.parse(config), "all")
    ranks = ranks_of(weights, rank)
    down: Dtype = "fp32" if upload == "fp32" else "bf16"
    frozen: Dtype = "fp32" if upload == "fp32" else "int8"
    adapter, update = [], []
    for weight, own in zip(weights, ranks, strict=True):
        rest = max(0, basis_rank(weight, SERVER_RANK) - own)
        adapter.append(
            AdapterPart(
                name=weight.name,
                frozen_b=zeros(weight.rows, rest, frozen),
                frozen_a=zeros(rest, weight.columns, frozen),
                basis=zeros(own, weight.columns, down),
                start_b=zeros(weight.rows, own, down),
            )
        )
        update.append(
            UpdatePart(name=weight.name, b=zeros(weight.rows, own, upload), a=zeros(own, weight.columns, upload))
        )

    traffic = round_traffic(weights, ranks, upload)

    most_bytes = HEADER_BYTES * (1 + len(weights))
    head: dict[str, Any] = {"protocol": 1, "run_id": "r", "version": 1, "manifest": manifest_digest(weights)}
    down_bytes = len(encode(Adapter(**head, parts=tuple(adapter))))
    up_bytes = len(encode(Update(**head, round=1, n_examples=1, parts=tuple(update))))
    assert traffic.down_bytes <= down_bytes <= traffic.down_bytes + most_bytes
    assert traffic.up_bytes <= up_bytes <= traffic.up_bytes + most_bytes


def test_the_assumed_run_is_the_one_that_the_server_writes() -> None:
    """`aggregator init`'s defaults; the board's code may not import the server's."""
    from aggregator.merge.rules import RULES
    from aggregator.settings.keys import KEYS

    defaults = {f"{key.section}.{key.name}": key.default for key in KEYS}
    facts = RULES[str(defaults["merge.rule"])].TRAITS
    assert defaults["train.upload"] == UPLOAD
    assert defaults["merge.server_rank"] == SERVER_RANK
    assert facts.cycle == ("both",) and facts.has_start and not facts.sketches


def test_a_link_takes_its_bits_and_its_round_trips() -> None:
    """1 MB over 8 Mbit/s is a second; three requests wait for three round trips."""
    assert Link(mbps=8, latency_ms=50).seconds(Traffic(600_000, 400_000)) == pytest.approx(1.0 + 0.15)


@given(st.floats(0.1, 1e4), st.floats(0.1, 1e4), st.floats(0, 1e3))
def test_a_faster_link_never_lowers_granularity(slow: float, faster_by: float, latency_ms: float) -> None:
    """And latency bounds it."""
    traffic = Traffic(10_000, 10_000)

    before, after = (granularity(5.0, Link(mbps, latency_ms).seconds(traffic)) for mbps in (slow, slow + faster_by))

    assert before <= after
    assert after * 3 * latency_ms / 1e3 <= 5.0 * (1 + 1e-9)
