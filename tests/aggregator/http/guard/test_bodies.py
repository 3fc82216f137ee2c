"""The pace that a body has to keep."""

from __future__ import annotations

from aggregator.http.guard.bodies import BLOCK_BYTES, BLOCK_S, Pace


def test_a_trickle_ends_and_a_slow_link_does_not() -> None:
    """A byte a second is given up after a block's time; a kilobyte and a half a second goes on for ever."""
    trickle, slow = Pace(0.0), Pace(0.0)
    for second in range(1, 3600):
        if second <= trickle.until_s:
            trickle.take(1, float(second))
        slow.take(1500, float(second))
        assert slow.until_s > second

    assert trickle.until_s == BLOCK_S


def test_speed_at_the_beginning_is_no_credit() -> None:
    """Whoever has sent much and then falls silent has as little time as everybody."""
    pace = Pace(0.0)

    pace.take(1000 * BLOCK_BYTES, 5.0)

    assert pace.until_s == 5.0 + BLOCK_S
