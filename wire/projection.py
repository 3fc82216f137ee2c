"""Ω, the random projection behind gradient sketches. Boards never send it: each draws the same one from a seed.

numpy's random streams may change between versions, and a fleet has many; so the signs come from SHAKE-256.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def projection(seed: int, name: str, sketch_rank: int, rows: int) -> NDArray[np.float32]:
    """Draw Ω, with entries ±1/√sketch_rank, so that E‖Ω·G‖² = ‖G‖² (Achlioptas 2003).

    Args:
        seed: the task's.
        name: the weight's.
        sketch_rank: rows of Ω and of the sketch.
        rows: the weight's rows, those of its gradient G.

    Returns:
        (sketch_rank, rows) float32, equal on every machine.
    """
    # One bit of the stream a sign: 1 is +, 0 is −; the bits of a byte from the lowest on.
    stream = hashlib.shake_256(f"braid-projection-1 {seed} {name} {sketch_rank} {rows}".encode())
    bits = np.unpackbits(np.frombuffer(stream.digest(-(-sketch_rank * rows // 8)), np.uint8), bitorder="little")
    signs = bits[: sketch_rank * rows].astype(np.float32) * 2 - 1
    omega: NDArray[np.float32] = signs.reshape(sketch_rank, rows) / np.float32(np.sqrt(sketch_rank))
    return omega
