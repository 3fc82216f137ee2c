"""Simulated fleets: who holds which text, at which rank."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.simulation.setting import RANKS, Mix, Setting, board_ranks
from benchmarks.simulation.texts import Partition, Pool, boards, source_shares, whole_counts


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=12), st.integers(0, 200))
def test_counts_are_whole_and_sum_to_the_total(parts: list[float], total: int) -> None:
    """No board gets an example more or less than it should, and none of its shares is off by more than one."""
    shares = [part / sum(parts) for part in parts]

    counts = whole_counts(shares, total)

    assert sum(counts) == total
    assert all(abs(count - share * total) <= 1 for count, share in zip(counts, shares, strict=True))


@pytest.mark.parametrize("partition", ["library", "dirichlet-0.1", "dirichlet-1", "coffee"])
def test_boards_hold_as_much_as_they_should_and_never_share(partition: Partition) -> None:
    """Training and held-out text are apart, on every board and between boards, and all boards hold equally many."""
    texts = boards(_pools(), partition, seed=3, n_train=20, n_held_out=4)

    train = [example.source for text in texts for example in text.train]
    held_out = [example.source for text in texts for example in text.held_out]
    assert [len(text.train) for text in texts] == [20] * 10
    assert [len(text.held_out) for text in texts] == [4] * 10
    assert len(set(train)) == len(train)
    assert not set(train) & set(held_out)


def test_a_smaller_alpha_gives_boards_that_differ_more() -> None:
    """By library every board has one source; with α = 0.1 one has most of a board's text, with α = 1 a smaller part."""
    largest = {name: source_shares(name, 10, seed=1).max(axis=1).mean() for name in ("dirichlet-0.1", "dirichlet-1")}

    assert source_shares("library", 10, seed=1).max(axis=1).mean() == 1
    assert 1 > largest["dirichlet-0.1"] > largest["dirichlet-1"] > 0.1


@pytest.mark.parametrize("mix", list(RANKS))
def test_ranks_are_those_of_the_mix_in_an_order_of_the_seed(mix: Mix) -> None:
    """No source is always the small one, and every rule of a seed sees the same fleet."""
    drawn = [board_ranks(Setting(rule=rule, learning_rate=0.1, seed=1, mix=mix)) for rule in ("braid", "flexlora")]

    assert drawn[0] == drawn[1]
    assert sorted(drawn[0]) == sorted(RANKS[mix])


def _pools() -> list[Pool]:
    """Ten sources, with more than enough text for any shares."""
    return [
        Pool(
            name,
            tuple((f"{name} {i}", "target") for i in range(300)),
            tuple((f"{name} held out {i}", "target") for i in range(60)),
        )
        for name in "abcdefghij"
    ]
