from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from edge_client.engines.lean.messages import profile_message
from edge_client.engines.lean.profile import profile
from edge_client.engines.lean.session import Session
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job
from tests.fakes.plans import with_mode
from wire.checks import check_profile
from wire.codec import decode
from wire.messages import Profile
from wire.run import Importance
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


@pytest.fixture
def run_profile(make_job: Jobs) -> Callable[..., tuple[Job, Profile]]:
    """Profile the bare base; the job, and the message that it left."""

    def run(
        importance: Importance = "sketch", settings: dict[str, Any] | None = None, **plan: Any
    ) -> tuple[Job, Profile]:
        job = make_job("profile", settings={"importance": importance} | (settings or {}))
        job = msgspec.structs.replace(job, plan=with_mode(job.plan, **plan))
        profile(job, Session())
        return job, decode(Path(job.result_path).read_bytes(), Profile)

    return run


RunProfile = Callable[..., tuple[Job, Profile]]


@pytest.mark.parametrize("importance", ["adalora", "magnitude_gradient"])
@pytest.mark.parametrize("scope", ["all", "decoder"])
@pytest.mark.parametrize("format", ["fp32", "nf4"])
def test_scores_go_with_the_sketches(importance: Importance, scope: str, format: str, run_profile: RunProfile) -> None:
    """A profile has one score above zero for every sketch, and passes wire.checks."""
    job, message = run_profile(
        importance, {"scope": scope}, format=format, compute="bf16" if format == "nf4" else "fp32"
    )

    check_profile(message, job.run, importance=importance)
    assert [sketch.name for sketch in message.sketches] == [weight.name for weight in job.run.weights]
    assert len(message.scores) == len(message.sketches)
    assert min(message.scores) > 0


def test_the_sketch_needs_no_scores(run_profile: RunProfile) -> None:
    """With importance "sketch" a board sends none: the server has all that it needs."""
    assert run_profile("sketch")[1].scores == ()


def test_scoring_leaves_the_sketches_alone(run_profile: RunProfile) -> None:
    """Scores are taken from the same passes: with magnitude_gradient the sketches are those of a plain profile, to the
    last bit; AdaLoRA's model learns on the way, and they stay within a per cent."""
    plain, observed, learning = (run_profile(kind)[1].sketches for kind in ("sketch", "magnitude_gradient", "adalora"))

    assert observed == plain
    for before, after in zip(plain, learning, strict=True):
        values = unpack(before.tensor)
        assert abs(unpack(after.tensor) - values).max() < 0.01 * abs(values).max()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("importance", ["adalora", "magnitude_gradient"])
def test_checkpointing_does_not_change_scores(
    checkpointing: bool, importance: Importance, run_profile: RunProfile
) -> None:
    """Blocks that are computed again in the backward pass are scored once."""
    scores = run_profile(importance, checkpointing=checkpointing)[1].scores

    assert scores == pytest.approx(run_profile(importance)[1].scores, rel=1e-4)


@pytest.mark.parametrize("importance", ["sketch", "adalora", "magnitude_gradient"])
def test_a_frozen_encoder_is_left_out(importance: Importance, run_profile: RunProfile) -> None:
    """A board whose plan freezes the encoder says nothing about it, and of the decoder what it would say anyway."""
    job, message = run_profile(importance, frozen_encoder=True)
    whole = run_profile(importance)[1]

    check_profile(message, job.run, importance=importance)
    decoder = [weight.name for weight in job.run.weights if weight.name.startswith("decoder.")]
    assert [sketch.name for sketch in message.sketches] == decoder
    assert len(message.scores) in (0, len(decoder))
    if importance != "adalora":  # whose encoder learns in the one and not in the other
        n_encoder = len(job.run.weights) - len(decoder)
        assert message.sketches == whole.sketches[n_encoder:]
        assert message.scores == pytest.approx(whole.scores[n_encoder:], rel=1e-6)


def test_a_score_that_is_no_number_is_refused(make_job: Jobs) -> None:
    """NaN and infinity never leave the board."""
    job = make_job("profile")
    name = job.run.weights[0].name
    sketches = {name: torch.ones(1, job.run.weights[0].columns)}

    for score in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=name):
            profile_message(job, 1, sketches, {name: score})
