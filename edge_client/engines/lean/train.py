"""The training job: evaluate the adapter that was received, train its strands, sketch what is left to learn."""

from __future__ import annotations

from edge_client.engines.contract import Stopped
from edge_client.engines.lean.round import TrainingRound
from edge_client.engines.lean.session import Meter, Session
from edge_client.host.energy import round_energy
from edge_client.host.worker_memory import return_memory_near
from edge_client.jobs.messages import TrainJob


def train(job: TrainJob, session: Session) -> dict[str, float]:
    """Train a round and write its `Update`; the job's numbers.

    They are: loss (of the last step), held_out_loss (of the adapter as received; absent without held-out text),
    n_examples (distinct training examples seen this round, which weighs the update), tokens_per_s and seconds of the
    steps, joules of them where this board's power can be read, encode_s and encoded_tokens of the encoder's pass over
    what the cache lacked, peak_bytes, residual_lost, 1, where what earlier uploads lacked could not be read,
    training_lost, 1, where a saved training could not; and with local strands personal_loss, as held_out_loss with them
    on top, and personal_lost, 1, where they could not be read.

    Resumes from `training_state_path` if that belongs to this very work; what was trained is then the same to the last
    bit as without the interruption, on the same machine with the same number of threads and the same plan. With another
    plan it goes on from the same step in that plan's way. Raises ConfigError where the loss is not finite, Stopped
    where the session wants to stop.
    """
    training, plan = TrainingRound(job, session), job.plan
    first_step = training.prepare()
    meter = Meter(session, "train", training.n_steps, done=first_step)
    with round_energy() as energy:
        for step in range(first_step, training.n_steps):
            loss = training.backward(step)
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
