"""A run of the study: every method's model is the one that is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.personal import texts
from benchmarks.personal.methods import FLEETS
from benchmarks.personal.runs import Settings, Work, run_one

pytestmark = pytest.mark.slow

SMALL = Settings(
    rounds=1,
    local_steps=2,
    batch=4,
    learning_rate=0.01,
    n_boards=2,
    n_train=8,
    n_test=3,
    n_own=2,
    n_shared=2,
    seeds=(1,),
    max_source_tokens=32,
    max_target_tokens=8,
)


@pytest.mark.parametrize("fleet", ["global", "FedRep", "PFTT"])
def test_a_boards_own_model_is_scored_and_not_the_fleets(
    fleet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of scores had changed below the study, which then printed the global adapter's for every method."""
    monkeypatch.setattr(texts, "LIBRARIES", ("huggingface_hub", "networkx"))  # the two that are read the fastest
    work = Work(set="docstrings", fleet=fleet, seed=1)

    run = run_one(work, settings=SMALL, data_folder=tmp_path, folder=tmp_path)

    assert [outcome.condition for outcome in run.outcomes] == list(FLEETS[fleet])
    of_own = [outcome for outcome in run.outcomes if outcome.condition != "global"]
    assert all(own != of_all for one in of_own for own, of_all in zip(one.own, one.global_, strict=True))
    assert len({one.own for one in run.outcomes}) == len(run.outcomes)
