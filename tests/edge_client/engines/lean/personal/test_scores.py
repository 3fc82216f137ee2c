"""What a board has learnt for itself is scored beside the version and the bare base, each under its own name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_client.engines.lean.evaluate import evaluate
from edge_client.engines.lean.personal.own_steps import train_own
from edge_client.engines.lean.session import Session
from edge_client.jobs.messages import EvaluateJob, Job, PersonalJob
from wire.run import Method, Personal

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def jobs(make_job: Jobs, path: Path, method: Method) -> tuple[PersonalJob, EvaluateJob]:
    """Training of strands in steps of their own, and the scoring that follows it."""
    personal = Personal(rank=2, method=method, when="after", learning_rate=0.03, steps=6)
    settings = {"trains_a": True, "personal": personal}
    own = make_job("personal", personal_path=str(path), settings=settings, starts=True)
    scored = make_job("evaluate", personal_path=str(path), settings=settings, starts=True, beside_base=True)
    assert isinstance(own, PersonalJob) and isinstance(scored, EvaluateJob)
    return own, scored


@pytest.mark.parametrize(("method", "name"), [("pftt", "personal_loss"), ("local", "alone_loss")])
def test_the_loss_is_that_of_the_boards_own_model(make_job: Jobs, tmp_path: Path, method: Method, name: str) -> None:
    """Strands over the adapter are `personal`, those of a board that is by itself `alone`; the version's own score is
    the same with and without them."""
    own, scored = jobs(make_job, tmp_path / "strands", method)
    before = evaluate(scored, Session())
    trained = train_own(own, Session())

    values = evaluate(scored, Session())

    assert name not in before
    assert values[name] == pytest.approx(trained["personal_loss"], rel=1e-6)
    assert values["loss"] == before["loss"] != values[name]
    assert values["base_loss"] == before["base_loss"]
    assert {"personal_loss", "alone_loss"} & set(values) == {name}


def test_strands_that_are_damaged_cost_their_own_score_alone(make_job: Jobs, tmp_path: Path) -> None:
    own, scored = jobs(make_job, tmp_path / "strands", "pftt")
    train_own(own, Session())
    whole = (tmp_path / "strands").read_bytes()
    (tmp_path / "strands").write_bytes(whole[: len(whole) // 2])

    values = evaluate(scored, Session())

    assert values["personal_lost"] == 1
    assert "personal_loss" not in values and values["loss"] > 0
    assert "personal_lost" not in evaluate(msgspec.structs.replace(scored, personal_path=""), Session())
