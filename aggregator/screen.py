"""Which updates and profiles a round believes. Pure: the answer is a reason for people, or None to accept.

What a board claims is bounded, not trusted: addressed to this round, shaped as the manifest says, finite, and of a size
that fits the rest of the cohort. Boards that lie within these bounds are a matter for robust merge rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from aggregator.merge.state import F32
from aggregator.merge.sums import Contribution
from wire.checks import Agreed, check_profile, check_update
from wire.errors import WireError
from wire.limits import MAX_EXAMPLES
from wire.messages import Importance, Profile, Tensor, Update
from wire.tensors import unpack

MIN_COHORT = 3
"""Accepted updates before sizes are compared: of fewer, half could be the ones that are wrong."""

B_FACTOR = 10.0
"""Largest B, as a multiple of the cohort's median. Honest boards differ by 2–3 (other data, other ranks)."""

SKETCH_FACTOR = 30.0
"""The same for sketches. Gradients vary more: a board whose text the model already knows has nearly none."""

MAX_B_RMS = 1e3
"""Largest root mean square of B at all. A learning rate of 0.005 over 20 steps gives about 0.1."""

MAX_SKETCH_RMS = 1e6
"""The same for sketches. FLAN-T5's gradients per token are below 10."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Root mean squares over all values of a contribution; None where it has none.

    A mean, not a norm: a board of more strands sends more values, and that is no offence.
    """

    b: float | None
    sketch: float | None


def sizes(added: Contribution) -> Sizes:
    """How large a contribution is. The server keeps these of the accepted ones: they are the cohort of `screen`."""
    return Sizes(b=_rms(added.b.values()), sketch=_rms(added.sketches.values()))


def _rms(arrays: Iterable[F32]) -> float | None:
    squares, count = 0.0, 0
    for array in arrays:
        squares += float(np.sum(np.square(array, dtype=np.float64)))
        count += array.size
    return (squares / count) ** 0.5 if count else None


def screen(
    update: Update,
    run: Agreed,
    *,
    round_id: int,
    version: int,
    sketch: bool,
    cohort: Sequence[Sizes] = (),
    max_examples: int = MAX_EXAMPLES,
) -> str | None:
    """Why an update may not count in this round, as a sentence; None if it may.

    `run` is what both sides hold fixed, such as a RunInfo; `sketch` whether the round asked for sketches; `cohort` the
    sizes of what this round has accepted so far.
    """
    try:
        check_update(update, run, round_id=round_id, version=version, sketch=sketch)
        b = _arrays((part.name, part.b) for part in update.parts)
        sketches = _arrays((part.name, part.sketch) for part in update.parts if part.sketch is not None)
    except WireError as error:
        return str(error)
    return _too_many(update.n_examples, max_examples) or _too_large(b, sketches, cohort)


def screen_profile(
    profile: Profile,
    run: Agreed,
    *,
    importance: Importance = "sketch",
    cohort: Sequence[Sizes] = (),
    max_examples: int = MAX_EXAMPLES,
) -> str | None:
    """Why a profile may not count, as a sentence; None if it may. Scores need no bound: only their ratios count."""
    try:
        check_profile(profile, run, importance=importance)
        sketches = _arrays((named.name, named.tensor) for named in profile.sketches)
    except WireError as error:
        return str(error)
    return _too_many(profile.n_examples, max_examples) or _too_large({}, sketches, cohort)


def _arrays(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, F32]:
    """Raises WireError that names the tensor whose values are not finite."""
    arrays = {}
    for name, tensor in tensors:
        try:
            arrays[name] = unpack(tensor)
        except WireError as error:
            raise WireError(f"{name}: {error}") from error
    return arrays


def _too_many(n_examples: int, max_examples: int) -> str | None:
    if 1 <= n_examples <= max_examples:
        return None
    return f"{n_examples} examples are claimed, 1 to {max_examples} are believed"


def _too_large(b: Mapping[str, F32], sketches: Mapping[str, F32], cohort: Sequence[Sizes]) -> str | None:
    other_b = [size.b for size in cohort if size.b is not None]
    other_sketches = [size.sketch for size in cohort if size.sketch is not None]
    return _beyond("B", b, _limit(other_b, B_FACTOR, MAX_B_RMS)) or _beyond(
        "sketches", sketches, _limit(other_sketches, SKETCH_FACTOR, MAX_SKETCH_RMS)
    )


def _limit(others: Sequence[float], factor: float, most: float) -> float:
    """The largest size that is believed, given the cohort's. A cohort of zeros says nothing."""
    typical = median(others) if len(others) >= MIN_COHORT else 0.0
    return min(most, factor * typical) if typical > 0 else most


def _beyond(what: str, arrays: Mapping[str, F32], limit: float) -> str | None:
    size = _rms(arrays.values())
    if size is None or size <= limit:
        return None
    worst = max(arrays, key=lambda name: float(np.abs(arrays[name]).max(initial=0.0)))
    return f"its {what} are too large: root mean square {size:.3g}, at most {limit:.3g} is believed (largest: {worst})"
