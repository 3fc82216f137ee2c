"""A small fleet of real processes under every kind of fault: nothing lost, nothing twice, the same model to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.disk.file_faults import build_library, find_compiler
from chaos.federation import Chaos, Plan
from chaos.report import as_text
from chaos.suite import run_suite

pytestmark = pytest.mark.slow

MANY_ROUNDS = 1000
"""More than any run needs until every fault has fired."""


@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler to build the faults of files with")
async def test_a_fleet_under_every_fault_loses_nothing(tmp_path: Path) -> None:
    chaos = Chaos(build_library(tmp_path), line_chance=0.12, longest_pause=0.5, patience_s=8, until_all_fired=True)

    result = await run_suite(tmp_path, Plan(1, MANY_ROUNDS, boards=2), chaos)

    print("\n".join(as_text(result, 0.0)))
    assert not result.missing
    assert result.is_good
    assert len(result.outcome.ledger.acknowledged) >= 2 * (1 + result.stored.rounds)
