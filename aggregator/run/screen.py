"""Checks of updates and profiles against the round. Pure: each gives a reason for people, or None to accept.

What a board claims is bounded, not trusted: addressed to this round, shaped as the manifest says, no farther from its
start than training can get, and of a size that fits the rest of the cohort. Boards that lie within these bounds are a
matter for `aggregator.merge.defences`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from aggregator.merge.gram import changed, squared_norm
from aggregator.merge.state import F32
from aggregator.merge.sums import Contribution
from wire.checks import Agreed, basis_rank, check_profile, check_update
from wire.errors import WireError
from wire.fields import Dtype
from wire.limits import MAX_EXAMPLES
from wire.messages import Profile, RoundSpec, Update
from wire.run import Importance

MIN_COHORT = 3
"""Accepted updates before sizes are compared: of fewer, half could be the ones that are wrong."""

ROUNDED: Mapping[Dtype, float] = MappingProxyType({"fp32": 2**-20, "bf16": 2**-8, "int8": 1 / 127, "int4": 1 / 7})
"""How far a value may be off by rounding on its way, as a part of the largest: a whole step of the format, half for the
rounding itself and half for what an earlier round's left out."""

FARTHER = 1.25
"""Times the farthest that training gets: what error feedback adds to a factor can exceed the step that it makes up
for. Ten honest boards of benchmarks.simulation.federation came to 1.0 times in rounds of five steps, and 0.9 in rounds
of twenty."""

Kind = Literal["change", "B", "A", "sketches"]


@dataclass(frozen=True, slots=True)
class Limit:
    """`factor`: largest size, as a multiple of the cohort's median. `most`: the largest at all. `words`: what was too
    large."""

    factor: float
    most: float
    words: str


LIMITS: Mapping[Kind, Limit] = MappingProxyType(
    {
        # Ten boards of benchmarks.simulation.federation, of other text and other ranks each, were at most 1.5 times
        # their median over three rounds of braid, fresh, delta and hetlora, and 2.3 times with rolora. Their changes
        # were about 0.03.
        "change": Limit(5.0, 1e3, "change of the model is"),
        # Of the factors themselves, where a round trains A: their product may be small though one of them is huge, and
        # some rules average them one by one. The same fleets: the same.
        "B": Limit(5.0, 1e3, "B is"),
        "A": Limit(5.0, 1e3, "A is"),
        # The same fleets: at most 1.5 times. Gradients vary more where tasks do, and with how well each is known.
        "sketches": Limit(10.0, 1e6, "sketches are"),
    }
)


@dataclass(frozen=True, slots=True)
class Size:
    """Root mean squares of one kind of values: of all of them, and of those of the weight where it is largest.

    Means, not norms: a board of more strands sends more values, and that is no offence. The peak keeps a board from
    hiding one weight's huge values among many small ones.
    """

    whole: float
    peak: float
    peak_at: str = ""


Sizes: TypeAlias = Mapping[Kind, Size]
"""The sizes of one contribution, without the kinds of values that it does not have."""


def sizes(added: Contribution) -> Sizes:
    """The sizes of a contribution. The server keeps those of the accepted ones: they are the cohort of `too_large`.

    A change ΔW = B·A − start counts as if its norm were that of a B on orthonormal rows: ‖ΔW‖_F over √(m·r). So a board
    gains nothing by moving size from one factor to the other.
    """
    strands = added.strands
    squares: dict[Kind, dict[str, tuple[float, int]]] = {
        "change": {name: (squared_norm(changed(added, name)), strands[name].b.size) for name in strands},
        "sketches": {name: _squares(sketch) for name, sketch in added.sketches.items()},
    }
    if added.trains != "b":
        squares["B"] = {name: _squares(strand.b) for name, strand in strands.items()}
        squares["A"] = {name: _squares(strand.a) for name, strand in strands.items()}
    return {kind: _size(values) for kind, values in squares.items() if values}


def _squares(array: F32) -> tuple[float, int]:
    """Σ v² and how many values."""
    flat = array.astype(np.float64).ravel()  # squares of float32 can be beyond float32
    return float(flat @ flat), array.size


def _size(squares: Mapping[str, tuple[float, int]]) -> Size:
    """The size of values whose Σ v² and counts are given by weight."""
    roots = {name: (total / count) ** 0.5 for name, (total, count) in squares.items()}
    peak_at = max(roots, key=lambda name: roots[name])
    whole = sum(total for total, _ in squares.values()) / sum(count for _, count in squares.values())
    return Size(whole**0.5, roots[peak_at], peak_at)


def screen(
    update: Update, run: Agreed, spec: RoundSpec, *, rank: int = 0, max_examples: int = MAX_EXAMPLES
) -> str | None:
    """Why an update cannot be of the round of `spec`, as a sentence; None if it can.

    Its values are not looked at: whoever unpacks them finds what is not finite, and `too_far` and `too_large` judge
    what they say.

    Args:
        update: as decoded.
        run: what both sides hold fixed, such as a RunInfo.
        spec: what the round asked.
        rank: that every weight must have, 0 where boards choose.
        max_examples: that a board may claim.
    """
    ranks = tuple(min(rank, basis_rank(weight, run.max_rank)) for weight in run.weights) if rank else None
    try:
        check_update(update, run, spec, ranks=ranks)
    except WireError as error:
        return str(error)
    return _too_many(update.n_examples, max_examples)


def screen_profile(
    profile: Profile, run: Agreed, *, importance: Importance = "sketch", max_examples: int = MAX_EXAMPLES
) -> str | None:
    """Why a profile cannot be of this run, as a sentence; None if it can. Scores need no bound: only their ratios
    count. Sketches are not unpacked, as in `screen`."""
    try:
        check_profile(profile, run, importance=importance)
    except WireError as error:
        return str(error)
    return _too_many(profile.n_examples, max_examples)


def encode_sizes(sizes: Sizes) -> str:
    """Sizes as they are stored, exact."""
    return msgspec.json.encode(sizes).decode()


def decode_sizes(text: str) -> Sizes:
    """Sizes that were stored; none for "", which an older program left."""
    return msgspec.json.decode(text, type=dict[Kind, Size]) if text else {}


def too_large(sent: Sizes, cohort: Sequence[Sizes] = ()) -> str | None:
    """Why sizes are larger than can be believed beside those of the `cohort`, which is what this round and the one
    before have accepted; None if they are not."""
    for kind, size in sent.items():
        others = [other[kind] for other in cohort if kind in other]
        whole = _limit([other.whole for other in others], LIMITS[kind])
        peak = _limit([other.peak for other in others], LIMITS[kind])
        if size.whole > whole:
            return _beyond(LIMITS[kind].words, size.whole, whole, f"of all weights; largest: {size.peak_at}")
        if size.peak > peak:
            return _beyond(LIMITS[kind].words, size.peak, peak, f"of {size.peak_at}")
    return None


def too_far(added: Contribution, farthest: float, upload: Dtype) -> str | None:
    """Why no training could have led from what a board was sent to what it sends; None where it could.

    A factor that was not trained, or began where the server does not know, is not looked at.

    Args:
        added: the board's contribution.
        farthest: that a round's training moves any value (`wire.adam`).
        upload: the number format of what boards send, which rounds.
    """
    for name, end in added.strands.items():
        start = added.start.get(name)
        moved = {"B": (end.b, 0.0 if start is None else start.b)} if added.trains != "a" else {}
        if added.trains != "b" and start is not None:
            moved["A"] = (end.a, start.a)
        for factor, (after, before) in moved.items():
            distance, limit = _largest(after - before), FARTHER * farthest
            if distance <= limit:  # before what rounding adds, which costs another look at all values
                continue
            limit += ROUNDED[upload] * _largest(after)
            if distance > limit:
                return (
                    f"{factor} of {name} is {distance:.3g} from where it began, and a round's training gets no farther "
                    f"than {limit:.3g} (train.learning_rate, train.local_steps)"
                )
    return None


def _largest(array: F32) -> float:
    """The largest magnitude in an array; 0 where it is empty."""
    return max(float(array.max(initial=0)), -float(array.min(initial=0)))  # np.abs would be a copy


def _too_many(n_examples: int, max_examples: int) -> str | None:
    if 1 <= n_examples <= max_examples:
        return None
    return f"{n_examples} examples are claimed, 1 to {max_examples} are believed"


def _limit(others: Sequence[float], limit: Limit) -> float:
    """The largest size that is believed, given the cohort's. A cohort of zeros says nothing."""
    typical = median(others) if len(others) >= MIN_COHORT else 0.0
    return min(limit.most, limit.factor * typical) if typical > 0 else limit.most


def _beyond(words: str, size: float, limit: float, where: str) -> str:
    return f"its {words} too large: root mean square {size:.3g}, at most {limit:.3g} is believed ({where})"
