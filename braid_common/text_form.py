"""The form in which a model meets texts: the words before a source, the lengths, and what is cut of a long source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DEFAULT_PREFIX = "summarize: "
"""Put before every source text unless the run says otherwise. FLAN-T5 and the builtin base both know it from training,
so a fresh adapter starts from "write the summary", not from "guess what is wanted"."""

Cut = Literal["start", "end", "middle"]
"""The part of a source that is left out where it is longer than allowed. A dialogue needs its end: cut its start."""

LONGEST_PIECE_CHARS = 16
"""Characters that one token stands for, at most: SentencePiece's own limit, which T5's vocabulary and the builtin one
reach. English has 4 to 5 characters per token."""


@dataclass(frozen=True, slots=True)
class TextForm:
    """How texts become what a model reads and writes.

    Attributes:
        prefix: words before every source; never cut.
        max_source_tokens: longest source in tokens, prefix and eos included.
        max_target_tokens: longest target in tokens, eos included.
        truncate_source: the part of a longer source that is left out.
    """

    prefix: str = DEFAULT_PREFIX
    max_source_tokens: int = 512
    max_target_tokens: int = 64
    truncate_source: Cut = "end"


DEFAULT_FORM = TextForm()
"""For text that belongs to no run."""
