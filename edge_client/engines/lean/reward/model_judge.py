"""A reward model that judges the answers of a round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec
from edge_client.engines.lean.model.model import DTYPES
from edge_client.engines.lean.reward.features import features
from edge_client.engines.lean.reward.head import load_head
from edge_client.engines.lean.session import Session
from edge_client.host.worker_memory import return_free_memory
from edge_client.jobs.messages import TrainJob
from edge_client.jobs.reward_spec import ModelReward
from edge_client.jobs.sizes import LEAST_HIDDEN_BYTES
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.panel import Judge


def model_judge(job: TrainJob, session: Session, reward: ModelReward) -> Judge:
    """The judge that a configured reward model is, over the job's base. Raises ConfigError as `load_head`."""
    head = load_head(Path(reward.path), job.run.base.digest, session.config(job).d_model)
    tokeniser, mode = session.tokeniser(job), job.plan.mode

    def judge(answers: Sequence[JudgedAnswer]) -> list[float]:
        spec = EncoderSpec(
            Path(job.base_folder),
            mode.format,
            DTYPES[mode.compute],
            session.torch_device(job),
            session.whole_base(job),
        )
        texts = [(answer.source, answer.text) for answer in answers]
        values = features(spec, tokeniser, texts, hidden_bytes=LEAST_HIDDEN_BYTES)
        return_free_memory()
        return [float(value) for value in head.probabilities(values)]

    return judge
