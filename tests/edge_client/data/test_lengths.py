"""Lengths of a board's texts, in tokens of the base that is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import builtin_base
from braid_common.example import Example
from braid_common.text_form import TextForm
from edge_client.data.lengths import MAX_MEASURED, evenly_spread, lengths_on_board, measure_lengths
from edge_client.data.tokeniser import Tokeniser
from edge_client.errors import ConfigError
from edge_client.jobs.data_spec import DataSpec
from wire.limits import MAX_TEXT_TOKENS

FOLDER = Path(builtin_base.folder())


@pytest.fixture(scope="module")
def tokeniser() -> Tokeniser:
    return Tokeniser(FOLDER, 1, 8000)


def example(n_source: int, n_target: int, *others: int) -> Example:
    """Texts of so many tokens each, eos not counted: "a" is one in the builtin base."""
    source, target, *other = ("a " * n for n in (n_source, n_target, *others))
    return Example(f"{n_source}", "g", source.strip(), target.strip(), tuple(other))


def test_prefix_and_eos_count(tokeniser: Tokeniser) -> None:
    """A text is as long as what the model reads: "sum: " is a prefix of two tokens, and eos is one."""
    n_prefix = len(tokeniser.target("sum: ", 100)) - 1
    form = TextForm("sum: ", 20, 4)
    examples = [example(i, 3) for i in range(1, 101)]

    lengths = measure_lengths(examples, tokeniser, form)

    assert lengths.source_tokens == tuple(n_prefix + 1 + percent for percent in (50, 90, 95, 99, 100))
    assert lengths.target_tokens == (4,) * 5
    n_whole = sum(len(tokeniser.source(e.source, TextForm("sum: ", 10_000, 4))) <= 20 for e in examples)
    assert lengths.sources_cut == 1 - n_whole / 100
    assert (lengths.targets_cut, lengths.n_examples, lengths.n_measured) == (0.0, 100, 100)
    assert (lengths.max_source_tokens, lengths.max_target_tokens) == (20, 4)


def test_every_reference_counts(tokeniser: Tokeniser) -> None:
    """Training may read any of them."""
    lengths = measure_lengths([example(3, 1, 9, 9)], tokeniser, TextForm("", 16, 4))

    assert lengths.target_tokens[0] == 10 and lengths.targets_cut == pytest.approx(2 / 3)


def test_a_large_data_set_is_sampled_evenly_and_always_alike(tokeniser: Tokeniser) -> None:
    """From the first to nearly the last, so that sorted data is seen whole."""
    examples = [example(1 + i // 500, 1) for i in range(5000)]

    lengths = measure_lengths(examples, tokeniser, TextForm("", 16, 4))

    assert (lengths.n_examples, lengths.n_measured) == (5000, MAX_MEASURED)
    assert lengths.source_tokens == (6, 10, 11, 11, 11)
    assert evenly_spread(examples, 10) == examples[::500]


def test_a_book_is_as_long_as_anything(tokeniser: Tokeniser) -> None:
    """Beyond the longest that any run may have, lengths are not told apart; what exceeds it is cut all the same."""
    lengths = measure_lengths([example(20_000, 1)], tokeniser, TextForm("", MAX_TEXT_TOKENS, 4))

    assert lengths.source_tokens == (MAX_TEXT_TOKENS,) * 5 and lengths.sources_cut == 1.0


def test_a_prefix_that_fills_the_source_is_found_before_training(tokeniser: Tokeniser) -> None:
    """The error is the tokeniser's: it names what to change on the server."""
    with pytest.raises(ConfigError, match="prefix"):
        measure_lengths([example(3, 3)], tokeniser, TextForm("a b c d e f g h", 8, 4))


def test_the_boards_whole_data_is_measured(tmp_path: Path) -> None:
    """Held-out examples too: they are evaluated on."""
    lines = [json.dumps({"source": "a " * (i + 1), "target": "a"}) for i in range(30)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))

    lengths = lengths_on_board(FOLDER, DataSpec(str(tmp_path / "text.jsonl")), TextForm("", 16, 4))

    assert lengths.n_examples == 30 and lengths.source_tokens[-1] == 31
