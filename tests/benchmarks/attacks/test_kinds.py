"""Attacks change what they say that they change, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from aggregator.merge.state import Factors
from aggregator.merge.sums import Contribution
from benchmarks.attacks.kinds import NOISE, SCALE, Attack, attacked, with_shuffled_labels
from benchmarks.attacks.runs import bad_boards
from benchmarks.simulation.texts import BoardText
from braid_common.example import Example

NAME = "decoder.block.0.layer.0.SelfAttention.q"


def contribution(seed: int = 1) -> Contribution:
    """A board that began one 7 × 5 weight at random strands of rank 3 and changed both factors, with a sketch."""
    draw = np.random.default_rng(seed)
    b, a, b_step, a_step, sketch = (
        draw.standard_normal(shape).astype(np.float32) for shape in ((7, 3), (3, 5), (7, 3), (3, 5), (4, 5))
    )
    start = Factors(b, a)
    return Contribution(
        weight=2.0, strands={NAME: Factors(b + b_step, a + a_step)}, start={NAME: start}, sketches={NAME: sketch}
    )


@pytest.mark.parametrize(("attack", "factor"), [("sign-flip", -1.0), ("scaled", SCALE)])
def test_what_training_changed_is_multiplied(attack: Attack, factor: float) -> None:
    """The step from where the board began, of both factors; where it began stays."""
    board = contribution()
    sent = attacked(board, attack, seed=3)

    before, after, turned = board.start[NAME], board.strands[NAME], sent.strands[NAME]
    np.testing.assert_allclose(turned.b - before.b, factor * (after.b - before.b), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(turned.a - before.a, factor * (after.a - before.a), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sent.sketches[NAME], factor * board.sketches[NAME], rtol=1e-6)
    assert sent.start is board.start
    assert sent.weight == board.weight


def test_noise_is_as_large_as_it_says_and_drawn_by_the_seed() -> None:
    board = contribution()
    one, again, other = (attacked(board, "noise", seed).sketches[NAME] for seed in (3, 3, 4))

    size = float(np.sqrt(np.mean(one**2) / np.mean(board.sketches[NAME] ** 2)))
    assert NOISE / 2 < size < 2 * NOISE  # 20 numbers are drawn
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("attack", ["none", "absent", "shuffled labels"])
def test_other_attacks_leave_the_update_alone(attack: Attack) -> None:
    board = contribution()
    assert attacked(board, attack, seed=3) is board


def test_shuffled_labels_are_the_same_labels_elsewhere() -> None:
    """What the board is judged on stays."""
    train = tuple(Example(str(i), "group", f"source {i}", f"target {i}") for i in range(20))
    text = BoardText(train=train, held_out=train[:3])
    shuffled = with_shuffled_labels(text, seed=3)

    assert [example.source for example in shuffled.train] == [example.source for example in train]
    targets = [example.target for example in shuffled.train]
    assert sorted(targets) == sorted(example.target for example in train)
    assert targets != [example.target for example in train]
    assert shuffled.held_out == text.held_out


def test_more_bad_boards_are_the_same_ones_and_others() -> None:
    """So that shares can be compared."""
    few, many = bad_boards(10, 0.2, seed=5), bad_boards(10, 0.4, seed=5)

    assert len(few) == 2
    assert len(many) == 4
    assert set(few) < set(many)
    assert bad_boards(10, 0.2, seed=6) != few or bad_boards(10, 0.2, seed=7) != few
