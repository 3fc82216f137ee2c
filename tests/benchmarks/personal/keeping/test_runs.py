"""What the study of `train.keep` reckons; that its runs work is `python -m benchmarks.personal.keeping --quick`."""

from __future__ import annotations

import pytest

from benchmarks.personal.keeping.runs import Stream


def test_forgetting_is_what_was_lost_since_the_best() -> None:
    """Chaudhry et al.: of each task but the last the final loss less the best one before; less than 0 where later tasks
    helped."""
    stream = Stream(losses=((2.0,), (1.5, 3.0), (1.9, 2.8, 1.0)))

    assert stream.just_learnt == pytest.approx((2.0 + 3.0 + 1.0) / 3)
    assert stream.final == pytest.approx((1.9 + 2.8 + 1.0) / 3)
    assert stream.forgetting == pytest.approx(((1.9 - 1.5) + (2.8 - 3.0)) / 2)
