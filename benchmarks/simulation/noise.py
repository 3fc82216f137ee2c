"""Noise on what boards send."""

from __future__ import annotations

import msgspec
import numpy as np

from wire.messages import Update
from wire.tensors import pack, unpack


def with_sketch_noise(update: Update, noise: float, seed: int) -> Update:
    """The update with Gaussian noise on its sketches, of `noise` times each sketch's root mean square."""
    if not noise:
        return update
    draw = np.random.default_rng(seed)
    parts = []
    for part in update.parts:
        if part.sketch is not None:
            sketch = unpack(part.sketch)
            deviation = noise * float(np.sqrt(np.square(sketch, dtype=np.float64).mean()))
            noisy = (sketch + deviation * draw.standard_normal(sketch.shape)).astype(np.float32)
            part = msgspec.structs.replace(part, sketch=pack(noisy, part.sketch.dtype))
        parts.append(part)
    return msgspec.structs.replace(update, parts=tuple(parts))
