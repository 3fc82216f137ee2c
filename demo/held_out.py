"""Text that no board trains on, as a file that `edge-client evaluate` reads."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from braid_common.example import Example
from builtin_base.docstrings import extract
from edge_client.data.load import load_data
from edge_client.jobs.data_spec import DataSpec

SEED = 1


def write_held_out(path: Path, libraries: Sequence[str], unseen: str, *, per_library: int) -> int:
    """Write examples of the boards' own held-out parts, and of a library that no board has at all; how many."""
    pools = [load_data(DataSpec(f"builtin:docstrings/{library}")).held_out for library in libraries] + [extract(unseen)]
    examples = [example for pool in pools for example in random.Random(SEED).sample(pool, min(per_library, len(pool)))]
    path.write_text("".join(map(_line, examples)), encoding="utf-8")
    return len(examples)


def _line(example: Example) -> str:
    return json.dumps({"id": example.id, "source": example.source, "target": example.target}) + "\n"
