"""The lean engine's end of the contract: which module carries out which kind of job."""

from __future__ import annotations

import torch

from edge_client.engines.contract import Host
from edge_client.engines.lean.evaluate import evaluate
from edge_client.engines.lean.probe import probe
from edge_client.engines.lean.profile import profile
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.host.processors import free_processors
from edge_client.jobs.messages import EngineJob, EvaluateJob, PersonalJob, ProbeJob, ProfileJob, TrainJob


def open_engine(host: Host) -> LeanEngine:
    """An engine that has loaded no base yet."""
    return LeanEngine(Session(host))


class LeanEngine:
    """Runs jobs in plain torch; base, tokeniser and examples stay loaded in its session between them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, job: EngineJob) -> dict[str, float]:
        """Carry out a job, as `edge_client.engines.contract.Engine` says."""
        torch.set_num_threads(job.threads or free_processors())
        self._session.follow_data(job.data)
        if isinstance(job, ProbeJob):
            return probe(job, self._session)
        return self._read_text(job) | self._session.data_facts

    def _read_text(self, job: ProfileJob | EvaluateJob | PersonalJob | TrainJob) -> dict[str, float]:
        """Carry out a job that reads the board's text."""
        if isinstance(job, ProfileJob):
            return profile(job, self._session)
        if isinstance(job, PersonalJob):
            from edge_client.engines.lean.personal.own_steps import train_own  # only where a board has strands

            return train_own(job, self._session)
        if isinstance(job, EvaluateJob):
            return evaluate(job, self._session)
        return train(job, self._session)
