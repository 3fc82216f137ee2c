"""What a board claims is bounded, not trusted: each refusal is a sentence that names what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest

from aggregator.merge.bases import random_basis
from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.rules import RULES
from aggregator.merge.state import initial_state
from aggregator.run.screen import (
    screen,
    screen_profile,
)
from wire.errors import WireError
from wire.manifest import manifest_digest
from wire.messages import NamedTensor, Profile, RoundSpec, Tensor, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack

Q, WI = "decoder.q", "decoder.wi"
SIDES = {Q: (48, 64), WI: (80, 64)}
WEIGHTS = tuple(Weight(name=name, rows=m, columns=n) for name, (m, n) in SIDES.items())
STATE = random_basis(initial_state(WEIGHTS), max_rank=8, seed=0)


@dataclass(frozen=True)
class Run:
    """What both sides agreed on."""

    run_id: str = "run"
    weights: tuple[Weight, ...] = WEIGHTS
    manifest: str = manifest_digest(WEIGHTS)
    max_rank: int = 8
    server_rank: int = 8


def part(name: str, rank: int = 4, size: float = 1.0, sketch: float | None = 1.0) -> UpdatePart:
    """Constant arrays: their root mean square is the number given."""
    m, n = SIDES[name]
    y = None if sketch is None else pack(np.full((8, n), sketch), "fp32")
    return UpdatePart(name=name, b=pack(np.full((m, rank), size), "fp32"), sketch=y)


def update(**changes: Any) -> Update:
    fields: dict[str, Any] = {
        "protocol": 1,
        "run_id": "run",
        "round": 3,
        "version": 2,
        "manifest": Run().manifest,
        "n_examples": 10,
        "parts": (part(Q), part(WI, rank=8)),
    }
    return Update(**{**fields, **changes})


def profile(**changes: Any) -> Profile:
    fields: dict[str, Any] = {
        "protocol": 1,
        "run_id": "run",
        "manifest": Run().manifest,
        "n_examples": 10,
        "sketches": tuple(NamedTensor(name=name, tensor=pack(np.ones((8, 64)), "fp32")) for name in SIDES),
    }
    return Profile(**{**fields, **changes})


def judged(one: Update, **changes: Any) -> str | None:
    """Why an update is refused before its sizes are looked at: by its form, or by a value that is not finite."""
    others = {name: changes.pop(name) for name in ("rank", "max_examples") if name in changes}
    spec = RoundSpec(**{"round": 3, "version": 2, "sketch": True, **changes})
    reason = screen(one, Run(), spec, **others)
    return reason or refused_values(lambda: contribution(one, RULES["weave"], STATE, "fp32"))


def judged_profile(one: Profile, **changes: Any) -> str | None:
    """The same of a profile."""
    return screen_profile(one, Run(), **changes) or refused_values(lambda: profile_contribution(one))


def refused_values(unpack_all: Callable[[], object]) -> str | None:
    try:
        unpack_all()
    except WireError as error:
        return str(error)
    return None


def with_nan(columns: int = 4, rows: int = 48) -> Tensor:
    good = pack(np.ones((rows, columns)), "fp32")
    return msgspec.structs.replace(good, data=good.data[:-4] + np.float32(np.nan).tobytes())


def test_honest_updates_and_profiles_pass() -> None:
    """Whole ones, of one weight only, of another dtype, without sketches, with a B of rank 0."""
    assert judged(update()) is None
    assert judged(update(parts=(part(WI, sketch=None),)), sketch=False) is None
    assert judged(update(parts=(part(Q, rank=0), part(WI)))) is None
    assert judged_profile(profile()) is None
    assert judged_profile(profile(sketches=profile().sketches[1:])) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocol": 2}, "protocol"),
        ({"run_id": "other"}, "run other"),
        ({"round": 4}, "round 4"),
        ({"version": 1}, "version 1"),
        ({"manifest": "0" * 64}, "manifest"),
        ({"n_examples": 10**6 + 1}, "1000001 examples"),
        ({"parts": (part(WI), part(Q))}, "order"),
        ({"parts": (part(Q), part(Q))}, Q),
        ({"parts": (msgspec.structs.replace(part(Q), name="decoder.Q"),)}, "decoder.Q"),
        ({"parts": (part(Q, rank=9),)}, Q),
        ({"parts": (part(Q), UpdatePart(name=WI, b=pack(np.ones((64, 4)), "fp32")))}, WI),
        ({"parts": (UpdatePart(name=Q, b=part(Q).b, sketch=pack(np.ones((7, 64)), "fp32")),)}, Q),
        ({"parts": (UpdatePart(name=Q, b=part(Q).b, sketch=pack(np.ones((8, 48)), "fp32")),)}, Q),
        ({"parts": (UpdatePart(name=Q, b=with_nan()), part(WI))}, Q),
        ({"parts": (part(Q, sketch=None), UpdatePart(name=WI, b=part(WI).b, a=pack(np.ones((4, 64)), "fp32")))}, WI),
    ],
)
def test_updates_that_do_not_fit_are_refused(changes: dict[str, Any], named: str) -> None:
    """Another run, round, manifest or protocol; names, shapes, values out of bounds: a sentence that names it."""
    reason = judged(update(**changes))

    assert reason is not None
    assert named in reason


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"protocol": 2}, "protocol"),
        ({"run_id": "other"}, "run other"),
        ({"manifest": "0" * 64}, "manifest"),
        ({"n_examples": 10**6 + 1}, "1000001 examples"),
        ({"sketches": profile().sketches[::-1]}, "order"),
        ({"sketches": (NamedTensor(name=Q, tensor=pack(np.ones((8, 65)), "fp32")),)}, Q),
        ({"sketches": (NamedTensor(name=Q, tensor=with_nan(64, rows=8)),)}, Q),
    ],
)
def test_profiles_that_do_not_fit_are_refused(changes: dict[str, Any], named: str) -> None:
    """The same for profiles."""
    reason = judged_profile(profile(**changes))

    assert reason is not None
    assert named in reason


def test_scores_are_judged_by_the_runs_importance() -> None:
    """Huge ones pass, for only their ratios count; missing, of the wrong number or all zero: a sentence."""
    honest, liar = profile(scores=(1.0, 2.0)), profile(scores=(1e300, 0.0))

    for one in (honest, liar):
        assert screen_profile(one, Run(), importance="adalora") is None
        assert "scores" in (screen_profile(one, Run()) or "")
        assert max(profile_contribution(one).shares.values()) <= 1
    for scores, named in (((), "0 scores for 2"), ((1.0,), "1 scores for 2"), ((0.0, 0.0), "above zero")):
        assert named in (screen_profile(profile(scores=scores), Run(), importance="adalora") or "")


def test_a_sketch_that_nobody_asked_for_is_refused() -> None:
    """Else one board alone would choose the next basis."""
    assert judged(update(), sketch=False) is not None


def test_factors_are_those_that_the_round_trains() -> None:
    """A where the round trains it, of the same rank as B or alone; missing, unasked or not finite ones are named."""
    a, no_b = pack(np.ones((4, 64)), "fp32"), pack(np.ones((48, 0)), "fp32")
    both, alone = UpdatePart(name=Q, b=part(Q).b, a=a), UpdatePart(name=Q, b=no_b, a=a)

    assert judged(update(parts=(both,)), trains="both") is None
    assert judged(update(parts=(alone,)), trains="a") is None
    for sent, trains in (
        (both, "b"),
        (both, "a"),
        (alone, "both"),
        (part(Q), "a"),
        (UpdatePart(name=Q, b=no_b, a=with_nan(64, rows=4)), "a"),
    ):
        assert Q in (judged(update(parts=(sent,)), trains=trains) or "")


def test_where_a_run_sets_the_rank_every_weight_has_it() -> None:
    """Of one more, one fewer or none there is a sentence, before anything is merged; narrow weights have what they
    can."""
    sixes = (part(Q, rank=6), part(WI, rank=6))

    assert judged(update(parts=sixes), rank=6) is None
    assert judged(update(parts=(part(Q, rank=8), part(WI, rank=8))), rank=99) is None
    for parts in (sixes[:1], (part(Q, rank=5), sixes[1]), (sixes[0], part(WI, rank=7))):
        assert "rank" in (judged(update(parts=parts), rank=6) or "")
