"""Advantages within a group, against numbers that were computed by hand and a slow float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from edge_client.rewards.advantages import DEVIATION_FLOOR, advantages


def test_a_groups_advantages_are_those_of_the_paper() -> None:
    """(r - mean) / deviation: of 0, 0, 1, 1 the mean is 1/2 and the deviation 1/2."""
    scale = 0.5 / (0.5 + DEVIATION_FLOOR)
    assert advantages([0, 0, 1, 1], 4, "group") == pytest.approx([-scale, -scale, scale, scale], abs=1e-15)


def test_the_baseline_of_an_answer_is_the_mean_of_the_others() -> None:
    """The answer itself has no part in it, which is what keeps the gradient unbiased."""
    rewards = np.random.default_rng(0).standard_normal(12)
    each = advantages(list(rewards), 3, "baseline")

    for i, advantage in enumerate(each):
        group = range(i - i % 3, i - i % 3 + 3)
        assert advantage == pytest.approx(rewards[i] - np.mean([rewards[j] for j in group if j != i]), abs=1e-12)


@pytest.mark.parametrize("kind", ["group", "baseline"])
def test_groups_do_not_see_each_other(kind: str) -> None:
    """An example on which every answer is good says as little as one on which every answer is bad."""
    each = advantages([5, 5, 5, -1, -1, 2], 3, kind)  # type: ignore[arg-type] # parametrised

    assert each[:3] == [0, 0, 0]
    assert each[3] == each[4] < 0 < each[5]
    assert sum(each[3:]) == pytest.approx(0, abs=1e-12)


def test_all_but_equal_rewards_give_no_large_advantage() -> None:
    """Rounding in the last place would otherwise be stretched to a deviation of one."""
    assert max(map(abs, advantages([0.3, 0.3 + 1e-9], 2, "group"))) < 1e-4
