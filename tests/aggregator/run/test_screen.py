"""What a board claims is bounded, not trusted: each refusal is a sentence that names what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.bases import random_basis
from aggregator.merge.contribution import contribution, profile_contribution
from aggregator.merge.rules import RULES
from aggregator.merge.state import F32, Factors, initial_state
from aggregator.merge.sums import Contribution
from aggregator.run.screen import (
    FARTHER,
    LIMITS,
    MIN_COHORT,
    Size,
    Sizes,
    screen,
    screen_profile,
    sizes,
    too_far,
    too_large,
)
from wire.errors import WireError
from wire.manifest import manifest_digest
from wire.messages import Dtype, NamedTensor, Profile, RoundSpec, Tensor, Update, UpdatePart, Weight
from wire.tensors import pack, unpack

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


# --- sizes ---------------------------------------------------------------------------------------------------------


def rows(rank: int, n: int = 64) -> F32:
    """Orthonormal ones (rank, n)."""
    drawn: F32 = np.linalg.qr(np.random.default_rng(4).standard_normal((n, rank)))[0].T.astype(np.float32)
    return drawn


def changing(size: float, rank: int = 4, **others: Any) -> Contribution:
    """A board whose B is constant on orthonormal rows, from zero."""
    strands = {name: Factors(np.full((m, rank), size, np.float32), rows(rank)) for name, (m, _) in SIDES.items()}
    return Contribution(weight=1, strands=strands, **others)


USUAL: Sizes = {"change": Size(1.0, 1.0), "B": Size(1.0, 1.0), "A": Size(0.1, 0.1), "sketches": Size(1.0, 1.0)}


def test_an_update_far_above_the_cohort_is_refused() -> None:
    """A lone huge update is refused once there is a cohort to compare with, and not before; its weight is named."""
    huge = changing(1.0)
    huge = replace(huge, strands={**huge.strands, WI: Factors(huge.strands[WI].b * 1e2, huge.strands[WI].a)})

    reason = too_large(sizes(huge), (USUAL,) * MIN_COHORT)

    assert reason is not None
    assert WI in reason and "change" in reason
    assert too_large(sizes(huge), (USUAL,) * (MIN_COHORT - 1)) is None
    assert too_large(sizes(changing(1.0)), (USUAL,) * MIN_COHORT) is None


def test_one_weight_cannot_hide_among_many() -> None:
    """A board that puts all it has into one weight is refused, though its size over all weights is usual."""
    honest = {f"w{i}": Factors(np.full((48, 4), 1.0, np.float32), rows(4)) for i in range(400)}
    poisoned = {**honest, "w7": Factors(np.full((48, 4), 15.0, np.float32), rows(4))}
    added = Contribution(weight=1, strands=poisoned)

    assert sizes(added)["change"].whole < 2
    assert "w7" in (too_large(sizes(added), (USUAL,) * MIN_COHORT) or "")


def test_sizes_are_of_what_was_changed() -> None:
    """Where a board began at a large adapter and moved it a little, the little counts; A that moved counts as well."""
    b, a = np.full((48, 4), 5.0, np.float32), rows(4)
    start = {Q: Factors(b, a)}

    moved_b = Contribution(weight=1, strands={Q: Factors(b + np.float32(0.25), a)}, start=start)
    moved_a = Contribution(weight=1, strands={Q: Factors(b, a * np.float32(1.5))}, start=start, trains="a")

    assert sizes(moved_b)["change"].whole == pytest.approx(0.25, rel=1e-5)
    assert sizes(moved_a)["change"].whole == pytest.approx(2.5, rel=1e-5)
    assert sizes(Contribution(weight=1, strands=start, start=start))["change"].whole == 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_no_board_gains_by_moving_size_between_factors(scale: float) -> None:
    """The change is that of the product; where A is trained, factors that are absurd one by one are refused as well."""
    honest = changing(1.0, trains="both")
    strands = {name: Factors(s.b * np.float32(scale), s.a / np.float32(scale)) for name, s in honest.strands.items()}
    scaled = replace(honest, strands=strands)

    assert sizes(scaled)["change"].whole == pytest.approx(1.0, rel=1e-5)
    reason = too_large(sizes(scaled), (USUAL,) * MIN_COHORT)
    assert (reason is None) == (scale == 1.0)


def test_sizes_are_those_of_dense_matrices() -> None:
    """‖B·A − B₀·A₀‖_F over the square root of the number of values in B, also where both factors have moved."""
    rng = np.random.default_rng(8)
    b, b_0 = (rng.standard_normal((48, 3)).astype(np.float32) for _ in range(2))
    a, a_0 = (rng.standard_normal((3, 64)).astype(np.float32) for _ in range(2))

    found = sizes(Contribution(weight=1, strands={Q: Factors(b, a)}, start={Q: Factors(b_0, a_0)}, trains="both"))

    dense = b.astype(np.float64) @ a - b_0.astype(np.float64) @ a_0
    assert found["change"].whole == pytest.approx(np.linalg.norm(dense) / b.size**0.5, rel=1e-5)
    assert found["B"].peak == pytest.approx(np.linalg.norm(b) / b.size**0.5, rel=1e-5)


@pytest.mark.parametrize(("size", "named"), [(10 * LIMITS["change"].most, Q), (1e30, Q)])
def test_there_is_a_limit_without_a_cohort(size: float, named: str) -> None:
    """Of changes and of sketches, also where their squares are beyond float32."""
    sketch = np.full((8, 64), 1e9, np.float32)

    assert named in (too_large(sizes(Contribution(weight=1, strands={Q: changing(size).strands[Q]}))) or "")
    assert WI in (too_large(sizes(Contribution(weight=1, sketches={WI: sketch}))) or "")


def test_a_huge_sketch_is_refused() -> None:
    """One board's sketch may not own the basis, in updates as in profiles."""
    small = 0.5 / LIMITS["sketches"].factor
    other: Sizes = {"sketches": Size(small, small)}
    cohort = (other,) * MIN_COHORT

    assert "sketches" in (too_large(sizes(profile_contribution(profile())), cohort) or "")
    assert "sketches" in (too_large(sizes(changing(1.0, sketches={Q: np.ones((8, 64), np.float32)})), cohort) or "")


def test_one_liar_does_not_move_the_limit() -> None:
    """The median, not the mean: one accepted outlier in the cohort changes nothing for the next."""
    liar: Sizes = {"change": Size(900.0, 900.0)}
    cohort = (USUAL, USUAL, USUAL, liar)

    assert too_large(sizes(changing(2 * LIMITS["change"].factor)), cohort) is not None
    assert too_large(sizes(changing(0.9 * LIMITS["change"].factor)), cohort) is None


def test_a_cohort_of_zeros_refuses_nobody() -> None:
    """Boards whose first updates are zero must not shut out those that learn."""
    zero: Sizes = {"change": Size(0.0, 0.0)}

    assert too_large(sizes(changing(1.0)), (zero,) * 5) is None


@given(st.integers(1, 8), st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_size_does_not_depend_on_rank(rank: int, size: float) -> None:
    """A board with more strands sends more values, not larger ones: sizes are means over values."""
    found = sizes(changing(size, rank))

    assert found["change"].whole == pytest.approx(size, rel=1e-4)
    assert found.keys() == {"change"}
    assert sizes(profile_contribution(profile())) == {"sketches": Size(1.0, 1.0, Q)}


# --- farther than training gets ---------------------------------------------------------------------------------------


def trained(by: float, trains: str = "both", start: Factors | None = None) -> Contribution:
    """A board whose one weight has one value of each trained factor moved so far."""
    m, n = SIDES[Q]
    begun = start or Factors(np.full((m, 2), 0.3, np.float32), np.full((2, n), 0.7, np.float32))
    b, a = begun.b.copy(), begun.a.copy()
    if trains != "a":
        b[5, 1] += by
    if trains != "b":
        a[1, 7] += by
    return Contribution(weight=1.0, strands={Q: Factors(b, a)}, start={Q: begun}, trains=trains)  # type: ignore[arg-type]


@pytest.mark.parametrize(("trains", "named"), [("b", "B of"), ("a", "A of"), ("both", "B of")])
def test_a_single_value_farther_than_training_gets_is_refused(trains: str, named: str) -> None:
    """From the very first update on, with nothing to compare it with; what training reaches passes."""
    assert too_far(trained(0.1, trains), 0.1, "fp32") is None

    reason = too_far(trained(FARTHER * 0.1 + 0.01, trains), 0.1, "fp32")

    assert reason is not None and reason.startswith(f"{named} {Q}") and "train.learning_rate" in reason


def test_a_factor_of_unknown_start_is_not_judged() -> None:
    """Boards that draw an A of their own may send any; their B began at zero."""
    one = replace(trained(5.0, "both"), start={})

    assert too_far(one, 10.0, "fp32") is None
    reason = too_far(one, 0.1, "fp32")
    assert reason is not None and reason.startswith("B of")


@given(
    st.sampled_from(["fp32", "bf16", "int8", "int4"]),
    st.floats(0.001, 10.0),
    st.integers(0, 2**32),
)
def test_rounding_on_the_way_is_no_offence(dtype: Dtype, farthest: float, seed: int) -> None:
    """A board that went as far as training gets passes in every format, though its factors are sent whole."""
    rng = np.random.default_rng(seed)
    m, n = SIDES[Q]
    start = Factors(rng.standard_normal((m, 2)).astype(np.float32), rng.standard_normal((2, n)).astype(np.float32))

    def sent(values: F32) -> F32:
        far = rng.uniform(-farthest, farthest, values.shape)
        return unpack(pack((values + far).astype(np.float32), dtype))

    one = Contribution(weight=1.0, strands={Q: Factors(sent(start.b), sent(start.a))}, start={Q: start}, trains="both")

    assert too_far(one, farthest, dtype) is None
