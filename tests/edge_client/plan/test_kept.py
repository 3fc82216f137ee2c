"""What a plan keeps loaded from job to job: planned for like all memory, and never at the cost of a strand."""

from __future__ import annotations

import msgspec
import pytest

from braid_common.base.t5_config import T5Config
from edge_client.host.board import Board
from edge_client.jobs.messages import Plan
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.cache_budget import NO_CACHE, CacheBudget
from edge_client.plan.candidates import ROOMY, Candidate
from edge_client.plan.choose import choose
from edge_client.plan.explain import explain, facts
from edge_client.plan.peak_memory import predict_kept, predict_peak
from edge_client.plan.planner import SHRINK_SHARE, Planner
from edge_client.plan.situation import CLIENT_BYTES, Situation
from tests.fakes.runs import SMALL_T5, run_of
from wire.run import Personal

CONFIG = {**SMALL_T5, "vocab_size": 32128, "d_model": 768, "d_kv": 64, "num_heads": 12, "d_ff": 2048}
CONFIG |= {"num_layers": 12, "num_decoder_layers": 12}
BASE = T5Config.parse(CONFIG)
RUN = run_of(CONFIG, {"scope": "decoder"}, max_rank=8)
ENCODER_BYTES = 2 * 12 * (4 * 768 * 768 + 3 * 768 * 2048)
"""The encoder's matrices in bf16."""
ROOM = CacheBudget(1 << 30, 500)


def situation(budget_bytes: int, cache: CacheBudget = ROOM) -> Situation:
    board = Board(budget_bytes + CLIENT_BYTES, "given by --memory", cpu_count=2, machine="aarch64", bf16_fast=True)
    return Situation(board, RUN, BASE, cache=cache)


def plan(budget_bytes: int, cache: CacheBudget = ROOM) -> Plan:
    return choose(situation(budget_bytes, cache)).plan


def test_a_board_with_room_keeps_the_encoder() -> None:
    """Its plan is otherwise that of a board without, and counts the encoder's bytes at least."""
    roomy = plan(4 << 30)
    without = plan(int(ROOMY * roomy.whole_peak_bytes) - (1 << 20))

    assert ENCODER_BYTES < roomy.kept_bytes < 1.5 * ENCODER_BYTES
    assert without.kept_bytes == 0
    assert msgspec.structs.replace(roomy, kept_bytes=0, budget_bytes=without.budget_bytes) == without


@pytest.mark.parametrize("more_bytes", [-4096, 4096])
def test_what_is_kept_stays_well_within_the_budget(more_bytes: int) -> None:
    """On either side of the limit: a worker whose plan is near its budget would give memory back in every step."""
    roomy = plan(4 << 30)
    limit_bytes = int(ROOMY * roomy.whole_peak_bytes)

    assert (plan(limit_bytes + more_bytes).kept_bytes > 0) == (more_bytes > 0)


def test_without_a_cache_nothing_is_kept() -> None:
    """The base is loaded whole there as it is."""
    assert plan(4 << 30, NO_CACHE).kept_bytes == 0


def test_the_prediction_is_of_the_worst_moment() -> None:
    """Training beside the encoder, or an encoding pass beside the whole base: neither is more."""
    roomy = plan(4 << 30)
    kept_bytes = predict_kept(BASE, RUN, roomy.mode, roomy.ranks)
    whole = predict_peak(BASE, RUN, msgspec.structs.replace(roomy.mode, cache="none"), roomy.ranks).total_bytes

    assert kept_bytes == roomy.kept_bytes
    # A mode without a cache holds the whole base as well, and runs the encoder for one micro-batch in each step.
    assert abs(roomy.whole_peak_bytes - whole) < 0.1 * whole


def test_memory_that_runs_short_takes_what_was_kept_first() -> None:
    """The next plan has the same strands, and keeps nothing."""
    planner = Planner(situation(4 << 30), measure=lambda: situation(4 << 30).board)
    begun = planner.choose(RUN)
    less_bytes = IMPORTS_BYTES + SHRINK_SHARE * (begun.whole_peak_bytes - IMPORTS_BYTES)
    assert begun.kept_bytes and less_bytes > begun.expected_peak_bytes

    planner.ran_short(begun)
    leaner = planner.leaner(RUN, begun)

    assert leaner.kept_bytes == 0
    assert leaner.ranks == begun.ranks and leaner.mode == begun.mode


def test_a_plan_that_keeps_fits_only_with_what_it_keeps() -> None:
    """A board whose memory was taken by others plans anew."""
    roomy = plan(4 << 30)

    assert Planner(situation(roomy.whole_peak_bytes)).fits(roomy, RUN)
    assert not Planner(situation(roomy.whole_peak_bytes - 1)).fits(roomy, RUN)


def test_people_are_told() -> None:
    chosen: Candidate = choose(situation(4 << 30))

    assert any("it stays loaded" in line for line in explain(chosen, situation(4 << 30).board, []))
    assert facts(chosen, situation(4 << 30).board, [])["kept_bytes"] == chosen.plan.kept_bytes


def test_a_kept_plan_makes_room_for_local_strands_that_came_later() -> None:
    """A board that has been given strands of its own in mid-task plans anew where they do not fit beside the others."""
    kept = plan(1 << 30)
    tight = Planner(situation(kept.whole_peak_bytes))
    personal = Personal(rank=64)
    run = msgspec.structs.replace(RUN, settings=msgspec.structs.replace(RUN.settings, personal=personal))
    more_bytes = predict_peak(BASE, run, kept.mode, kept.ranks).local_bytes

    assert more_bytes > 1 << 20
    assert tight.fits(kept, RUN)
    assert not tight.fits(kept, run)
    assert not Planner(situation(kept.whole_peak_bytes + more_bytes - 4096)).fits(kept, run)
    assert Planner(situation(kept.whole_peak_bytes + 2 * more_bytes)).fits(kept, run)
