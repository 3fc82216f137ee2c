"""A round that learns from rewards: its objective with the board's judges, whose programs end with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_client.engines.lean.reward.objective import RewardObjective
from edge_client.engines.lean.round import TrainingRound
from edge_client.engines.lean.session import Session
from edge_client.jobs.messages import TrainJob
from edge_client.jobs.reward_spec import ModelReward
from edge_client.rewards.panel import Judge, Panel


@contextmanager
def judged_round(job: TrainJob, session: Session, training: TrainingRound) -> Iterator[RewardObjective]:
    """The objective of a round, to be entered before the round is prepared."""

    def judge_of_model(reward: ModelReward) -> Judge:
        from edge_client.engines.lean.reward.model_judge import model_judge

        return model_judge(job, session, reward)

    panel = Panel(job.rewards, judge_of_model)
    try:
        yield RewardObjective(job, session, training, panel)
    finally:
        panel.close()
        session.left_out = ""
