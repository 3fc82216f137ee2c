"""Every input of the corpus, those that were finds among them, through the same checks as in a run of the fuzzer."""

from __future__ import annotations

import pytest

from fuzz.places import corpus
from fuzz.replay import replay
from fuzz.targets import SHARES

pytestmark = pytest.mark.slow  # a server for every input

GOOD = frozenset({"decoded", "accepted", "read", "taken", "200"})
"""Words for inputs that are what they should be: each target has some, or nothing behind the first check is tried."""

TIMES = frozenset({"slow"})
"""Finds of a busy machine are none here; the fuzzer tries such inputs again and again."""


@pytest.mark.parametrize("target", SHARES)
def test_no_input_of_the_corpus_is_a_find(target: str) -> None:
    """What was mended stays mended, and what is refused is refused with a sentence."""
    files = corpus(target)

    watch, finds = replay(target, files)

    assert not [(find, trace) for find, trace in finds if find.kind not in TIMES]
    assert watch.n_inputs == len(files) > 4
    assert GOOD & watch.outcomes.keys()
