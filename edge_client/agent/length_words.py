"""Words for the lengths of a board's texts, and for what a run's limits cut of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from braid_common.text_form import Cut
from edge_client.jobs.sizes import LENGTH_STEP
from wire.limits import MAX_TEXT_TOKENS
from wire.text_lengths import PERCENTS, TextLengths

WORTH_A_WARNING = 0.05
"""Part of the sources or targets that may be cut without a warning: a few long ones are in every data set."""


def lengths_words(lengths: TextLengths) -> str:
    """The lengths in one line."""
    at = PERCENTS.index(95)
    measured = "" if lengths.n_measured == lengths.n_examples else f" (of {lengths.n_measured:,} looked at)"
    return (
        f"text: {lengths.n_examples:,} examples; 95 % of the sources have {lengths.source_tokens[at]} tokens at most, "
        f"95 % of the targets {lengths.target_tokens[at]}{measured}"
    )


def cut_warnings(lengths: TextLengths, truncate_source: Cut) -> Iterator[tuple[str, str]]:
    """Message and hint for sources and targets of which more than WORTH_A_WARNING are cut."""
    at = PERCENTS.index(95)
    if lengths.sources_cut > WORTH_A_WARNING:
        limit, enough = lengths.max_source_tokens, _rounded(lengths.source_tokens[at], LENGTH_STEP)
        other = {"end": "start", "start": "end", "middle": "end"}[truncate_source]
        yield (
            f"{lengths.sources_cut:.0%} of the sources are longer than the {limit} tokens of this run: "
            f"their {truncate_source} is left out",
            f"in the server's run.toml, train.max_source_tokens = {enough} holds 95 % of them; or "
            f'train.truncate_source = "{other}" leaves out their {other} instead',
        )
    if lengths.targets_cut > WORTH_A_WARNING:
        limit, enough = lengths.max_target_tokens, _rounded(lengths.target_tokens[at], LENGTH_STEP // 4)
        yield (
            f"{lengths.targets_cut:.0%} of the targets are longer than the {limit} tokens of this run: "
            "their end is left out",
            f"in the server's run.toml, train.max_target_tokens = {enough} holds 95 % of them",
        )


def _rounded(tokens: int, step: int) -> int:
    """The next length that batches are padded to, so that it costs no more."""
    return min(-(-tokens // step) * step, MAX_TEXT_TOKENS)
