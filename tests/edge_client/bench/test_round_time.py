"""Time of a round's traffic on a link, and the granularity that follows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_client.bench.round_time import Link, granularity
from edge_client.plan.round_cost import Traffic


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
