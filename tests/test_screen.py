"""What a board claims is bounded, not trusted: each refusal is a sentence that names what was wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.sums import contribution, profile_contribution
from aggregator.screen import B_FACTOR, MAX_B_RMS, MIN_COHORT, SKETCH_FACTOR, Sizes, screen, screen_profile, sizes
from wire.manifest import manifest_digest
from wire.messages import NamedTensor, Profile, Tensor, Update, UpdatePart, Weight
from wire.tensors import pack

Q, WI = "decoder.q", "decoder.wi"
SIDES = {Q: (48, 64), WI: (80, 64)}
WEIGHTS = tuple(Weight(name=name, rows=m, columns=n) for name, (m, n) in SIDES.items())


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


def judged(one: Update, cohort: tuple[Sizes, ...] = (), **changes: Any) -> str | None:
    return screen(one, Run(), **{"round_id": 3, "version": 2, "sketch": True, "cohort": cohort, **changes})


def with_nan(rank: int = 4) -> Tensor:
    good = pack(np.ones((48, rank)), "fp32")
    return msgspec.structs.replace(good, data=good.data[:-4] + np.float32(np.nan).tobytes())


def test_honest_updates_and_profiles_pass() -> None:
    """Whole ones, of one weight only, of another dtype, without sketches, with a B of rank 0."""
    assert judged(update()) is None
    assert judged(update(parts=(part(WI, sketch=None),)), sketch=False) is None
    assert judged(update(parts=(part(Q, rank=0), part(WI)))) is None
    assert screen_profile(profile(), Run()) is None
    assert screen_profile(profile(sketches=profile().sketches[1:]), Run()) is None


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
        ({"parts": (part(Q), part(WI, size=10 * MAX_B_RMS))}, WI),
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
        ({"sketches": (NamedTensor(name=Q, tensor=pack(np.full((8, 64), 1e9), "fp32")),)}, Q),
    ],
)
def test_profiles_that_do_not_fit_are_refused(changes: dict[str, Any], named: str) -> None:
    """The same for profiles."""
    reason = screen_profile(profile(**changes), Run())

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


def test_an_update_far_above_the_cohort_is_refused() -> None:
    """A lone huge update is refused once there is a cohort to compare with, and not before; its tensor is named."""
    huge = update(parts=(part(Q), part(WI, size=100 * B_FACTOR)))
    usual = Sizes(b=1.0, sketch=1.0)

    reason = judged(huge, (usual,) * MIN_COHORT)

    assert reason is not None
    assert WI in reason
    assert judged(huge, (usual,) * (MIN_COHORT - 1)) is None
    assert judged(update(), (usual,) * MIN_COHORT) is None


def test_a_huge_sketch_is_refused() -> None:
    """One board's sketch may not own the basis, in updates as in profiles."""
    usual = (Sizes(b=1.0, sketch=0.5 / SKETCH_FACTOR),) * MIN_COHORT

    assert "sketches" in (judged(update(), usual) or "")
    assert "sketches" in (screen_profile(profile(), Run(), cohort=usual) or "")


def test_one_liar_does_not_move_the_limit() -> None:
    """The median, not the mean: one accepted outlier in the cohort changes nothing for the next."""
    cohort = (Sizes(b=1.0, sketch=None),) * 3 + (Sizes(b=900.0, sketch=None),)

    assert judged(update(parts=(part(Q, size=2 * B_FACTOR),)), cohort) is not None
    assert judged(update(parts=(part(Q, size=0.9 * B_FACTOR),)), cohort) is None


def test_a_cohort_of_zeros_refuses_nobody() -> None:
    """Boards whose first updates are zero must not shut out those that learn."""
    assert judged(update(), (Sizes(b=0.0, sketch=0.0),) * 5) is None


@given(st.integers(1, 8), st.floats(0.01, 100), st.sampled_from(["fp32", "bf16", "int8"]))
@settings(max_examples=40, deadline=None)
def test_size_does_not_depend_on_rank(rank: int, size: float, dtype: Any) -> None:
    """A board with more strands sends more values, not larger ones: sizes are means over values."""
    b = pack(np.full((48, rank), size), dtype)
    one = contribution(update(parts=(UpdatePart(name=Q, b=b),)))

    found = sizes(one)

    assert found.b == pytest.approx(size, rel=0.01)
    assert found.sketch is None
    assert sizes(profile_contribution(profile())) == Sizes(b=None, sketch=1.0)
