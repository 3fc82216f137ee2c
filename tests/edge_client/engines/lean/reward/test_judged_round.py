"""A round that learns from rewards: what it improves, what it saves, what it sends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from edge_client.engines.contract import Host, Stopped
from edge_client.engines.lean.model.batches import collate
from edge_client.engines.lean.reward.judged_round import judged_round
from edge_client.engines.lean.round import TrainingRound
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Job, Progress
from edge_client.jobs.reward_spec import read_rewards
from tests.edge_client.engines.lean.conftest import WORDS
from wire.codec import decode
from wire.messages import Update
from wire.run import Personal, RewardLearning
from wire.tensors import unpack

pytestmark = pytest.mark.slow  # rounds of a torch model

MakeJob = Callable[..., Job]
MakeRewardJob = Callable[..., Any]

RARE = {"kind": "words", "allow": WORDS[:6], "name": "rare"}
SHORT = {"kind": "length", "at_most": 2, "weight": 0.5}
FAILING = {"kind": "program", "command": ["/no/such/judge"]}
SETTINGS = {"scope": "decoder", "local_steps": 5, "batch": 4, "learning_rate": 0.05, "max_target_tokens": 4}


@pytest.fixture
def make_reward_job(make_job: MakeJob) -> MakeRewardJob:
    """A round that learns from the rewards in `tables`; settings as in a run's file."""

    def make(
        *tables: dict[str, Any],
        learning: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Any:
        reward = RewardLearning(**(learning or {}))
        rewards = read_rewards(list(tables or (RARE, SHORT)), Path("edge-client.toml"))
        run = SETTINGS | {"reward": reward} | (settings or {})
        return make_job(ranks=(4,), settings=run, rewards=rewards, starts=True, **changes)

    return make


def sent(job: Any) -> dict[str, np.ndarray[Any, Any]]:
    """B of every weight in the update that the job wrote."""
    update = decode(Path(job.result_path).read_bytes(), Update)
    return {part.name: unpack(part.b) for part in update.parts if part.b is not None}


@pytest.mark.parametrize("learning", [{}, {"advantage": "baseline", "kl": 0.0}, {"reuse": 2, "kl": 0.0}])
def test_answers_become_what_is_rewarded(make_reward_job: MakeRewardJob, learning: dict[str, Any]) -> None:
    """The mean reward over a longer round is clearly above that of its first steps, which are the same ones."""
    first = train(make_reward_job(learning=learning, settings={"local_steps": 4, "batch": 8}), Session())
    whole = train(make_reward_job(learning=learning, settings={"local_steps": 40, "batch": 8}), Session())

    assert whole["reward"] > first["reward"] + 0.15
    assert whole["reward"] == pytest.approx(whole["reward_rare"] + 0.5 * whole["reward_length"])
    assert whole["loss"] > 0


def test_the_distance_to_the_received_adapter_is_counted(make_reward_job: MakeRewardJob) -> None:
    """Before the first step there is none, though the board begins at factors that are not zero."""
    at_once = train(make_reward_job(settings={"local_steps": 1}), Session())
    later = train(make_reward_job(), Session())

    assert at_once["kl"] == pytest.approx(0, abs=1e-6)
    assert later["kl"] > 1e-3


def test_strands_of_the_boards_own_learn_from_rewards_as_well(make_reward_job: MakeRewardJob, tmp_path: Path) -> None:
    """They lie beside the policy and beside its reference: in the next round, too, it begins without a distance."""
    settings = {"local_steps": 1, "personal": Personal(rank=2, learning_rate=0.5)}
    job = make_reward_job(settings=settings, personal_path=str(tmp_path / "strands"))
    first = train(job, Session())
    second = train(job, Session())

    assert second["personal_loss"] != first["personal_loss"] == first["held_out_loss"]
    assert first["kl"] == pytest.approx(0, abs=1e-6) and second["kl"] == pytest.approx(0, abs=1e-6)


def test_the_gradient_is_that_of_autograd(make_reward_job: MakeRewardJob) -> None:
    """-A·∇log π of each answer, added up: computed for each answer by itself through the ordinary loss."""
    job = make_reward_job(learning={"kl": 0.0, "samples": 2})
    training = TrainingRound(job, Session())
    with judged_round(job, Session(), training) as objective:
        training.prepare()
        objective.backward(0)
        rollout = objective._rollout
    assert rollout is not None
    found = {name: linear.b.grad for name, linear in training.model.linears.items() if linear.leaves}
    expected = {name: torch.zeros_like(grad) for name, grad in found.items() if grad is not None}
    for answer, advantage in zip(rollout.answers, rollout.advantages, strict=True):
        config = training.model.config
        for linear in training.model.linears.values():
            linear.b.grad, linear.sketch = None, None
        training.model.loss_sum(collate([answer], config.pad_id, config.start_id)).backward()  # type: ignore[no-untyped-call]
        for name, total in expected.items():
            grad = training.model.linears[name].b.grad
            assert grad is not None
            total += advantage * grad  # the loss is -log π, so this is -A·∇log π

    assert max(float(grad.abs().max()) for grad in expected.values()) > 1e-3
    for name, total in expected.items():
        grad = found[name]
        assert grad is not None
        torch.testing.assert_close(grad, total, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("n_steps", "n_asked"), [(2, 1), (3, 1), (2, 2)])
def test_a_round_goes_on_to_the_same_bits(
    make_reward_job: MakeRewardJob, tmp_path: Path, n_steps: int, n_asked: int
) -> None:
    """Also from between two steps on the same answers, which were drawn by a policy that is no more, and from the
    midst of writing."""
    learning = {"reuse": 2}
    whole = make_reward_job(learning=learning, result_path=str(tmp_path / "whole"))
    parts = make_reward_job(
        learning=learning, result_path=str(tmp_path / "parts"), training_state_path=str(tmp_path / "state")
    )
    numbers = train(whole, Session())

    with pytest.raises(Stopped):
        train(parts, Session(_stopping(n_steps, n_asked)))
    resumed = train(parts, Session())

    for name in ("reward", "kl", "loss"):
        assert resumed[name] == pytest.approx(numbers[name], abs=1e-12)
    for name, b in sent(whole).items():
        np.testing.assert_array_equal(b, sent(parts)[name])


def _stopping(n_steps: int, n_asked: int) -> Host:
    """A host that wants to stop once so many steps are done and it is asked for the so-manieth time since."""
    done = asked = 0

    def emit(progress: Progress) -> None:
        nonlocal done
        done = progress.step if progress.phase == "train" else 0

    def wants_stop() -> bool:
        nonlocal asked
        asked += done >= n_steps
        return asked >= n_asked

    ticks = count()  # so that every step is told
    return Host(emit=emit, clock=lambda: float(next(ticks)), wants_stop=wants_stop)


def test_boards_with_opposite_weights_part(make_reward_job: MakeRewardJob, tmp_path: Path) -> None:
    """The same answers, judged by owners who want opposite things, give opposite first gradients."""
    jobs = [
        make_reward_job(
            RARE | {"weight": weight},
            learning={"kl": 0.0},
            settings={"local_steps": 1},
            result_path=str(tmp_path / name),
        )
        for weight, name in ((1.0, "for"), (-1.0, "against"))
    ]
    for job in jobs:
        train(job, Session())

    one, other = map(sent, jobs)
    start = {name: (b + other[name]) / 2 for name, b in one.items()}
    assert any(np.abs(b - start[name]).max() > 1e-3 for name, b in one.items())
    again = make_reward_job(settings={"local_steps": 1, "learning_rate": 1e-12}, result_path=str(tmp_path / "start"))
    train(again, Session())
    for name, b in sent(again).items():
        np.testing.assert_allclose(b, start[name], atol=1e-4)


def test_a_reward_that_fails_is_left_out_and_told(make_reward_job: MakeRewardJob) -> None:
    numbers = train(make_reward_job(FAILING, RARE, settings={"local_steps": 2}), Session())

    assert numbers["reward_lost_program"] == 1.0
    assert numbers["reward"] == numbers["reward_rare"]


def test_a_reward_that_fails_ends_the_round_where_that_is_configured(make_reward_job: MakeRewardJob) -> None:
    with pytest.raises(ConfigError, match="reward program fails"):
        train(make_reward_job(FAILING | {"on_failure": "stop"}, RARE), Session())


def test_a_board_without_rewards_says_so(make_reward_job: MakeRewardJob) -> None:
    """A server can ask for learning from rewards, and names none."""
    with pytest.raises(ConfigError, match="this board has none"):
        train(msgspec.structs.replace(make_reward_job(), rewards=()), Session())


def test_warm_rounds_learn_from_right_answers(make_reward_job: MakeRewardJob) -> None:
    """They are ordinary rounds, to the last bit."""
    job = make_reward_job(learning={"warm_rounds": 1})
    plain_run = msgspec.structs.replace(
        job.run, settings=msgspec.structs.replace(job.run.settings, reward=msgspec.UNSET)
    )

    numbers = train(job, Session())
    warm = sent(job)
    train(msgspec.structs.replace(job, run=plain_run, rewards=()), Session())

    assert "reward" not in numbers
    for name, b in sent(job).items():
        np.testing.assert_array_equal(b, warm[name])
