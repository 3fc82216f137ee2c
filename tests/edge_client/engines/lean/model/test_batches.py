from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braid_common.example import Example
from braid_common.text_form import DEFAULT_PREFIX, TextForm
from edge_client.data.tokeniser import Pair, Tokeniser
from edge_client.engines.lean.model.batches import IGNORED, Order, collate, micro_batches
from edge_client.errors import BaseModelError
from edge_client.jobs.sizes import LENGTH_STEP


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 50), batch=st.integers(1, 9), steps=st.integers(1, 40), seed=st.integers(0, 2**53))
def test_a_round_uses_each_example_equally_often(n: int, batch: int, steps: int, seed: int) -> None:
    """Whatever the sizes: full batches, counts that differ by one at most, as many distinct ones as promised."""
    order = Order(list(range(n)), batch, steps, seed)

    seen = Counter(i for step in range(steps) for i in order.examples(step))

    assert sum(seen.values()) == batch * steps
    assert len(seen) == order.n_distinct
    counts = [seen.get(i, 0) for i in range(n)]
    assert max(counts) - min(counts) <= 1


def test_order_needs_no_replay() -> None:
    """A new Order gives any step the examples that it had when all steps were asked for in turn."""
    order = Order([i % 7 for i in range(50)], batch=4, steps=40, seed=3)
    in_turn = [order.examples(step) for step in range(40)]

    alone = [Order([i % 7 for i in range(50)], batch=4, steps=40, seed=3).examples(step) for step in range(40)]

    assert alone == in_turn


def test_seeds_give_other_orders() -> None:
    """Two boards or rounds see their examples in different orders."""
    one, other = (Order([1] * 50, batch=4, steps=10, seed=seed).examples(0) for seed in (1, 2))

    assert one != other


def test_batches_hold_like_lengths() -> None:
    """Sorting by length inside a window leaves little padding, and the batches' lengths in no order."""
    lengths = [(i * 37) % 100 for i in range(320)]
    order = Order(lengths, batch=8, steps=16, seed=1)

    batches = [[lengths[i] for i in order.examples(step)] for step in range(16)]

    padding = sum(max(batch) * len(batch) - sum(batch) for batch in batches) / sum(map(sum, batches))
    assert padding < 0.1
    longest = [max(batch) for batch in batches]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_collate_shifts_and_pads() -> None:
    """The decoder reads the start token and then the target; labels are ignored where there is no token."""
    batch = collate([Pair((5, 6, 1), (7, 1)), Pair((8, 1), (9, 4, 1))], pad_id=0, start_id=2)

    source, target = [0] * (LENGTH_STEP - 3), LENGTH_STEP // 4 - 3
    assert batch.source.tolist() == [[5, 6, 1, *source], [8, 1, 0, *source]]
    assert batch.source_mask[:, :4].tolist() == [[True, True, True, False], [True, True, False, False]]
    assert not batch.source_mask[:, 4:].any()
    assert batch.decoder_input.tolist() == [[2, 7, 0, *[0] * target], [2, 9, 4, *[0] * target]]
    assert batch.labels.tolist() == [[7, 1, IGNORED, *[IGNORED] * target], [9, 4, 1, *[IGNORED] * target]]
    assert (batch.n_source_tokens, batch.n_target_tokens) == (5, 5)


def test_micro_batches_are_padded_each_by_itself() -> None:
    """A long example costs its own micro-batch only, and few shapes occur."""
    pairs = [Pair((1,) * n, (1,)) for n in (40, 9, 2, 32, 2)]

    shapes = [tuple(batch.source.shape) for batch in micro_batches(pairs, 2, 0, 0)]

    assert shapes == [(2, 64), (2, 32), (1, 32)]


@pytest.mark.slow
def test_truncation_keeps_eos(base_folder: Path) -> None:
    """A text that is too long ends in eos all the same, and the prefix comes first."""
    tokeniser = Tokeniser(base_folder, eos_id=1, vocabulary=96)
    example = Example("id", "group", " ".join(["w5"] * 50), "w6 w7")

    pair = tokeniser.pair(example, TextForm(max_source_tokens=10, max_target_tokens=8))

    assert pair.source == (*tokeniser.target(DEFAULT_PREFIX, 2)[:-1], *[8] * 8, 1)
    assert pair.target == (9, 10, 1)
    assert tokeniser.decode(pair.target) == "w6 w7"


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{", "{}", '{"model": 3}', '{"model": {"type": "WordLevel"}}'])
def test_damaged_tokenizer_is_one_error(content: str | None, tmp_path: Path) -> None:
    """A missing, cut or foreign tokenizer.json is a BaseModelError that names the file."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(BaseModelError, match=r"tokenizer\.json"):
        Tokeniser(tmp_path, eos_id=1, vocabulary=96)
