"""Kinds of attack: changes that bad boards make to an update, or to their data."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import numpy as np

from aggregator.merge.state import F32, Factors
from aggregator.merge.sums import Contribution
from benchmarks.simulation.texts import BoardText
from braid_common.seeds import derive_seed

Attack = Literal["none", "absent", "sign-flip", "scaled", "noise", "shuffled labels"]
"""none: bad boards behave. absent: they send nothing, which is what a perfect defence would make of them."""

ATTACKS: tuple[Attack, ...] = ("sign-flip", "scaled", "noise", "shuffled labels")

SCALE = 10.0
"""Factor of a scaled update."""

NOISE = 3.0
"""Standard deviation of noise that is sent instead of a change, as a part of that change's root mean square."""


def attacked(board: Contribution, attack: Attack, seed: int) -> Contribution:
    """A trained board's contribution as the attack would send it: what it changed of each factor, and its sketches."""
    if attack not in ("sign-flip", "scaled", "noise"):
        return board
    draw = np.random.default_rng(seed)
    strands = {}
    for name, strand in board.strands.items():
        start = board.start.get(name) or Factors(np.zeros_like(strand.b), strand.a)
        b, a = (_turned(end - begin, attack, draw) for end, begin in ((strand.b, start.b), (strand.a, start.a)))
        strands[name] = Factors(start.b + b, start.a + a)
    sketches = {name: _turned(sketch, attack, draw) for name, sketch in board.sketches.items()}
    return replace(board, strands=strands, sketches=sketches)


def _turned(change: F32, attack: Attack, draw: np.random.Generator) -> F32:
    """A factor's change, any shape, as the attack would have it."""
    if attack == "sign-flip":
        return -change
    if attack == "scaled":
        scaled: F32 = change * np.float32(SCALE)
        return scaled
    size = float(np.sqrt(np.mean(np.square(change, dtype=np.float64))))
    drawn: F32 = (NOISE * size * draw.standard_normal(change.shape)).astype(np.float32)
    return drawn


def with_shuffled_labels(text: BoardText, seed: int) -> BoardText:
    """The board's text with its training targets dealt out anew; what it is judged on stays."""
    targets = [example.target for example in text.train]
    random.Random(derive_seed(seed, "labels")).shuffle(targets)
    train = tuple(replace(example, target=target) for example, target in zip(text.train, targets, strict=True))
    return replace(text, train=train)
