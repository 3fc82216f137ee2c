"""Sizes of what boards send are bounded: by the cohort, by absolute limits, and by how far training gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.contribution import profile_contribution
from aggregator.merge.state import F32, Factors
from aggregator.merge.sums import Contribution
from aggregator.run.screen import (
    FARTHER,
    LIMITS,
    MIN_COHORT,
    Size,
    Sizes,
    sizes,
    too_far,
    too_large,
)
from wire.fields import Dtype
from wire.messages import NamedTensor, Profile
from wire.tensors import pack, unpack

Q, WI = "decoder.q", "decoder.wi"
SIDES = {Q: (48, 64), WI: (80, 64)}


def profile() -> Profile:
    """One whose sketches are all ones."""
    ones = pack(np.ones((8, 64)), "fp32")
    sketches = tuple(NamedTensor(name=name, tensor=ones) for name in SIDES)
    return Profile(protocol=1, run_id="run", manifest="0" * 64, n_examples=10, sketches=sketches)


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
