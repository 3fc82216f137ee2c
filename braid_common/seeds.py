"""Seeds that derive from names, so that a round can be replayed without replaying those before it."""

from __future__ import annotations

import hashlib


def derive_seed(run_seed: int, *parts: int | str) -> int:
    """A 53-bit seed from the run's and a purpose such as ("order", round_id, device); the same on every machine."""
    text = "\x1f".join([str(run_seed), *(str(part) for part in parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 11
