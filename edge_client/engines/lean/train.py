"""The training job: evaluate the adapter that was received, train its strands, sketch what is left to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.round import StepLoss, TrainingRound
from edge_client.engines.lean.session import Meter, Session
from edge_client.host.energy import round_energy
from edge_client.host.worker_memory import return_memory_near
from edge_client.jobs.messages import TrainJob
from edge_client.jobs.reward_spec import require_rewards


def train(job: TrainJob, session: Session) -> dict[str, float]:
    """Train a round and write its `Update`; the job's numbers.

    They are: loss (of the last step), held_out_loss (of the adapter as received; absent without held-out text),
    n_examples (distinct training examples seen this round, which weighs the update), tokens_per_s and seconds of the
    steps, joules of them where this board's power can be read, encode_s and encoded_tokens of the encoder's pass over
    what the cache lacked, peak_bytes, residual_lost, 1, where what earlier uploads lacked could not be read, and
    training_lost, 1, where a saved training could not. With local strands also personal_loss, as held_out_loss with
    them on top, and personal_lost, 1, where they could not be read. Of a round that learns from rewards also the means
    over its answers: reward, reward_TITLE of each, kl (nats per token to the received adapter), and reward_lost_TITLE,
    1, of a reward that failed.

    Resumes from `training_state_path` if that belongs to this very work; what was trained is then the same to the last
    bit as without the interruption, on the same machine with the same number of threads and the same plan. With another
    plan it goes on from the same step in that plan's way. Raises ConfigError where the loss is not finite or a reward
    fails that is not to be skipped, Stopped where the session wants to stop.
    """
    training = TrainingRound(job, session)
    with _gradients(job, session, training) as backward:
        return _trained(job, session, training, backward)


def _trained(
    job: TrainJob, session: Session, training: TrainingRound, backward: Callable[[int], StepLoss]
) -> dict[str, float]:
    plan, first_step = job.plan, training.prepare()
    meter = Meter(session, "train", training.n_steps, done=first_step)
    with round_energy() as energy:
        for step in range(first_step, training.n_steps):
            loss = backward(step)
            training.step(step, loss)
            return_memory_near(plan.whole_peak_bytes, plan.budget_bytes)
            meter.count(step + 1, loss.mean, loss.n_tokens)
            is_last = step + 1 == training.n_steps  # a round that is done is not held up, but sent
            stops, pauses = session.wants_stop(), not is_last and session.wants_pause()
            training.save(now=stops or pauses or is_last)
            if pauses:
                session.wait()
                stops = session.wants_stop()
            if stops:
                raise Stopped
    return training.finish(meter) | energy


@contextmanager
def _gradients(job: TrainJob, session: Session, training: TrainingRound) -> Iterator[Callable[[int], StepLoss]]:
    """The computation of a step's gradients: the round's own, or an objective of rewards, whose code is loaded where
    it is used alone. Raises ConfigError where the round learns from rewards and the board has none."""
    if job.run.settings.rewards_in(job.spec.round) is None:
        yield training.backward
        return
    require_rewards(job.run, job.rewards)
    from edge_client.engines.lean.reward.judged_round import judged_round

    with judged_round(job, session, training) as objective:
        yield objective.backward
