"""Lengths of texts in a report: what is sent is what is read, and nonsense is refused by its name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import WireError
from wire.limits import MAX_METRICS, MAX_TEXT_TOKENS
from wire.messages import Report
from wire.text_lengths import PERCENTS, TextLengths, quantiles

TOKENS = st.integers(1, MAX_TEXT_TOKENS)
QUANTILES = st.lists(TOKENS, min_size=len(PERCENTS), max_size=len(PERCENTS)).map(lambda lengths: tuple(sorted(lengths)))
LENGTHS = st.builds(
    TextLengths,
    n_examples=st.integers(1, 200_000),
    n_measured=st.integers(1, 1000),
    source_tokens=QUANTILES,
    target_tokens=QUANTILES,
    max_source_tokens=TOKENS,
    max_target_tokens=TOKENS,
    sources_cut=st.floats(0, 1),
    targets_cut=st.floats(0, 1),
)


@given(LENGTHS)
def test_what_is_sent_is_what_is_read(lengths: TextLengths) -> None:
    """Every number survives, and a report has room for them."""
    values = Report(kind="data", values=lengths.values()).values

    assert TextLengths.from_values(values) == lengths
    assert len(values) <= MAX_METRICS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_examples": 0.0}, "n_examples"),
        ({"n_examples": 2.5}, "n_examples"),
        ({"source_p95": -1.0}, "source_p95"),
        ({"source_p95": MAX_TEXT_TOKENS + 1.0}, "source_p95"),
        ({"target_p50": 9.0, "target_p90": 8.0}, "target lengths"),
        ({"targets_cut": 1.5}, "targets_cut"),
        ({"sources_cut": None}, "sources_cut"),
    ],
)
def test_lengths_that_no_text_has(change: dict[str, float | None], said: str) -> None:
    """A value that is missing, out of its bounds or out of order is named."""
    good = TextLengths(3, 3, (8,) * 5, (8,) * 5, 16, 16, 0.0, 0.0).values()
    changed = {name: value for name, value in (good | change).items() if value is not None}

    with pytest.raises(WireError, match=said):
        TextLengths.from_values(changed)


@given(st.lists(TOKENS, min_size=1, max_size=300))
def test_a_quantile_is_the_smallest_length_that_holds_its_part(lengths: list[int]) -> None:
    """By counting: so many percent are no longer, and with any shorter length fewer are."""
    for percent, length in zip(PERCENTS, quantiles(lengths), strict=True):
        held = sum(each <= length for each in lengths)
        shorter = sum(each < length for each in lengths)
        assert 100 * held >= percent * len(lengths) > 100 * shorter
