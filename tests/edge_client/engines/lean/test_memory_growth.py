"""How the memory prediction grows: never less for more of anything, and with every strand by a bounded amount."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import CacheDtype, Compute, Format, TrainingMode
from edge_client.plan.peak_memory import predict_encoding, predict_peak, strand_marginal_bytes
from tests.fakes.runs import SMALL_T5, run_of
from wire.fields import Dtype
from wire.run import Importance, RunInfo, Scope

FORMATS: tuple[Format, ...] = get_args(Format)
COMPUTES: tuple[Compute, ...] = get_args(Compute)
UPLOADS: tuple[Dtype, ...] = get_args(Dtype)
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)
MAX_RANK = 32
WAYS: tuple[tuple[Scope, CacheDtype, bool], ...] = (
    ("decoder", "none", False),
    ("decoder", "int8", False),
    ("all", "none", False),
    ("all", "none", True),
)
"""Scope, cache and whether the encoder is frozen, as far as they go together."""


@dataclass(frozen=True)
class Case:
    scope: Scope
    cache: CacheDtype
    frozen_encoder: bool
    format: Format
    compute: Compute
    checkpointing: bool
    upload: Dtype
    importance: Importance
    trains_a: bool
    own_basis: bool
    server_rank: int
    micro_batch: int
    source: int
    target: int

    @property
    def run(self) -> RunInfo:
        lengths = {"max_source_tokens": self.source, "max_target_tokens": self.target}
        begin = {"trains_a": self.trains_a, "own_basis": self.own_basis}
        return run_of(
            SMALL_T5,
            {"scope": self.scope, "upload": self.upload, "importance": self.importance, **begin, **lengths},
            max_rank=MAX_RANK,
            server_rank=self.server_rank,
        )

    def ranks(self, even: int, raised: int = 0) -> list[int]:
        """`even` of each weight, and all of the weight of index `raised`; none of a frozen encoder's."""
        return [
            0 if self.frozen_encoder and weight.is_encoder else MAX_RANK if i == raised else even
            for i, weight in enumerate(self.run.weights)
        ]

    def peak(self, ranks: list[int]) -> int:
        predicted = predict_peak(
            T5Config.parse(SMALL_T5),
            self.run,
            TrainingMode(
                format=self.format,
                compute=self.compute,
                micro_batch=self.micro_batch,
                checkpointing=self.checkpointing,
                cache=self.cache,
                frozen_encoder=self.frozen_encoder,
            ),
            ranks,
        )
        return predicted.total_bytes

    def marginals(self) -> tuple[int, ...]:
        return strand_marginal_bytes(
            T5Config.parse(SMALL_T5),
            self.run,
            TrainingMode(
                format=self.format,
                compute=self.compute,
                micro_batch=self.micro_batch,
                checkpointing=self.checkpointing,
                frozen_encoder=self.frozen_encoder,
            ),
        )


cases = st.builds(
    lambda way, *rest: Case(*way, *rest),
    st.sampled_from(WAYS),
    st.sampled_from(FORMATS),
    st.sampled_from(COMPUTES),
    st.booleans(),
    st.sampled_from(UPLOADS),
    st.sampled_from(IMPORTANCES),
    st.booleans(),
    st.booleans(),
    st.integers(1, 64),
    st.integers(1, 16),
    st.integers(2, 1100),
    st.integers(2, 200),
)
ranks_of_all = st.integers(0, MAX_RANK)


@given(cases, ranks_of_all, st.integers(0, 71))
def test_more_of_anything_never_needs_less(case: Case, rank: int, index: int) -> None:
    """One strand of one weight, one example, one token of source or of target more."""
    ranks = case.ranks(rank)
    peak = case.peak(ranks)

    raised = [
        most if i == index else own for i, (own, most) in enumerate(zip(ranks, case.ranks(MAX_RANK), strict=True))
    ]
    assert case.peak(raised) >= peak
    assert replace(case, micro_batch=case.micro_batch + 1).peak(ranks) >= peak
    assert replace(case, source=case.source + 1).peak(ranks) >= peak
    assert replace(case, target=case.target + 1).peak(ranks) >= peak


@given(cases, ranks_of_all)
def test_checkpointing_never_needs_more(case: Case, rank: int) -> None:
    """Whatever else is chosen."""
    ranks = case.ranks(rank)

    assert replace(case, checkpointing=True).peak(ranks) <= replace(case, checkpointing=False).peak(ranks)


@given(cases, ranks_of_all)
def test_a_frozen_encoder_never_needs_more(case: Case, rank: int) -> None:
    """In the same run and with the same strands on the decoder."""
    frozen = replace(case, scope="all", cache="none", frozen_encoder=True)
    trained = replace(frozen, frozen_encoder=False)

    assert frozen.peak(frozen.ranks(rank)) <= trained.peak(trained.ranks(rank))
    assert frozen.peak(frozen.ranks(rank)) <= trained.peak(frozen.ranks(rank))


@given(cases, ranks_of_all)
def test_training_a_takes_its_gradient_and_moments(case: Case, rank: int) -> None:
    """Beside the same frozen factors never less than training B alone, and at most 16 bytes more for each value of A,
    its copies in a message, and the slack of both; in place of frozen factors of that rank no more than beside it."""
    if case.upload in ("int8", "int4"):  # there the residuals of a board that draws its own A are not kept
        case = replace(case, upload="bf16")
    ranks = case.ranks(rank)
    b_alone, beside = (replace(case, trains_a=trains_a, own_basis=True) for trains_a in (False, True))
    instead = replace(case, trains_a=True, own_basis=False)
    values = sum(r * weight.columns for r, weight in zip(ranks, case.run.weights, strict=True))

    assert 0 <= beside.peak(ranks) - b_alone.peak(ranks) <= 1.1 * (16 + 3 * 4) * values + 1
    if max(ranks) <= case.server_rank:
        assert instead.peak(ranks) <= beside.peak(ranks)


@given(cases, st.lists(ranks_of_all, min_size=72, max_size=72))
def test_strands_cost_no_more_than_their_marginals(case: Case, drawn: list[int]) -> None:
    """peak(ranks) ≤ peak(zeros) + Σ rank · marginal, which lets a planner add strands up."""
    ranks = [min(rank, most) for rank, most in zip(drawn, case.ranks(MAX_RANK), strict=False)]
    bound = case.peak([0] * len(ranks)) + sum(r * m for r, m in zip(ranks, case.marginals(), strict=True))

    assert case.peak(ranks) <= bound


@given(cases, st.lists(ranks_of_all, min_size=72, max_size=72))
def test_the_peak_is_convex_in_the_ranks(case: Case, drawn: list[int]) -> None:
    """Halfway between two choices of strands it needs no more than the mean of both, to rounding."""
    low = case.ranks(0, raised=-1)
    high = [2 * min(rank // 2, most) for rank, most in zip(drawn, case.ranks(MAX_RANK), strict=False)]
    middle = [rank // 2 for rank in high]

    assert case.peak(middle) <= (case.peak(low) + case.peak(high)) / 2 + 2


@pytest.mark.parametrize(("format", "compute"), tuple(product(FORMATS, COMPUTES)))
def test_longer_sources_never_need_less_to_encode(format: Format, compute: Compute) -> None:
    """The pass runs short texts together, which a limit for longer ones does not forbid."""

    def peak(source: int) -> int:
        run = run_of(SMALL_T5, {"scope": "decoder", "max_source_tokens": source})
        return predict_encoding(
            T5Config.parse(SMALL_T5), run, TrainingMode(format=format, compute=compute, micro_batch=1)
        ).total_bytes

    peaks = [peak(source) for source in range(2, 2100, 7)]

    assert peaks == sorted(peaks)
