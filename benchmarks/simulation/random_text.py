"""Text of random words, for bases of random values: every example is as long as a benchmark wants it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from braid_common.seeds import derive_seed


def write_random_text(path: Path, n_examples: int, n_source: int, n_target: int, *, seed: int) -> str:
    """Write pairs of so many words of the random base's vocabulary; what --data says of the file.

    A word is one token and the end of a text another, so a text is longer than a limit of as many tokens, and is cut to
    exactly the limit.
    """
    from quantize.random_base import SPECIAL_PIECES, VOCABULARY  # imports torch

    draw = random.Random(derive_seed(seed, "text"))

    def text(count: int) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - len(SPECIAL_PIECES))}" for _ in range(count))

    rows = [{"source": text(n_source), "target": text(n_target)} for _ in range(n_examples)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)
