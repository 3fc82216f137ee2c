"""Lengths of texts in tokens: how long a board's texts are, and what share of them a run's limits cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braid_common.base.files import read_t5_config
from braid_common.example import Example
from braid_common.text_form import TextForm
from edge_client.data.load import load_data
from edge_client.data.tokeniser import Tokeniser
from edge_client.errors import base_errors
from edge_client.jobs.data_spec import DataSpec
from wire.limits import MAX_TEXT_TOKENS
from wire.text_lengths import TextLengths, quantiles

MAX_MEASURED = 1000
"""Examples that are looked at, spread evenly over the data. A share of 5 % is then known to 0.7 % (one standard error),
and a Raspberry Pi is done in seconds."""


def lengths_on_board(base_folder: Path, data: DataSpec, form: TextForm) -> TextLengths:
    """The lengths of all examples of a board, held-out ones too, with the tokenizer of the base in `base_folder`.

    Raises DataError, BaseModelError, and ConfigError where the form's prefix leaves no room for text.
    """
    with base_errors():
        config = read_t5_config(base_folder)
    read = load_data(data)
    return measure_lengths(
        [*read.train, *read.held_out], Tokeniser(base_folder, config.eos_id, config.vocab_size), form
    )


def measure_lengths(examples: Sequence[Example], tokeniser: Tokeniser, form: TextForm) -> TextLengths:
    """How long the sources and all targets of examples are, of MAX_MEASURED at most.

    Args:
        examples: one at least.
        tokeniser: of the base that is trained.
        form: the prefix, which counts, and the limits.

    Returns:
        Lengths in tokens, prefix and eos included, and the shares that the form cuts.

    Raises:
        ConfigError: the form's prefix leaves no room for text.
    """
    sample = evenly_spread(examples, MAX_MEASURED)
    tokeniser.source(max((example.source for example in sample), key=len), form)  # raises where the prefix fills it
    most = MAX_TEXT_TOKENS + 1  # to tell the longest allowed from what is longer
    sources = [tokeniser.count(form.prefix + example.source, most) for example in sample]
    targets = [tokeniser.count(target, most) for example in sample for target in example.targets]
    return TextLengths(
        n_examples=len(examples),
        n_measured=len(sample),
        source_tokens=quantiles([min(length, MAX_TEXT_TOKENS) for length in sources]),
        target_tokens=quantiles([min(length, MAX_TEXT_TOKENS) for length in targets]),
        max_source_tokens=form.max_source_tokens,
        max_target_tokens=form.max_target_tokens,
        sources_cut=sum(length > form.max_source_tokens for length in sources) / len(sources),
        targets_cut=sum(length > form.max_target_tokens for length in targets) / len(targets),
    )


def evenly_spread(examples: Sequence[Example], most: int) -> list[Example]:
    """All examples, or `most` of them at equal distances: a file that is sorted by date or length is covered whole."""
    if len(examples) <= most:
        return list(examples)
    return [examples[i * len(examples) // most] for i in range(most)]
