"""The session that the boards of a simulated federation share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from braid_common.example import Example
from braid_common.text_form import TextForm
from edge_client.data.dataset import Data
from edge_client.data.tokeniser import Pair, Tokeniser
from edge_client.engines.contract import Host
from edge_client.engines.lean.session import Session
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import BaseJob


class SharedSession(Session):
    """One session for all boards: a job's `data` is the board's name. Texts are tokenised once."""

    def __init__(self) -> None:
        super().__init__(Host(clock=time.process_time))
        self.texts: Mapping[str, Data] = {}
        self._fast: _FastTokeniser | None = None

    def data(self, spec: DataSpec) -> Data:
        return self.texts[spec.path]

    def tokeniser(self, job: BaseJob) -> Tokeniser:
        if self._fast is None:
            config = self.config(job)
            self._fast = _FastTokeniser(Path(job.base_folder), config.eos_id, config.vocab_size)
        return self._fast


class _FastTokeniser(Tokeniser):
    """A tokeniser that remembers: a federation reads the same examples again and again, in run after run."""

    def pair(self, example: Example, form: TextForm) -> Pair:
        return self._remembered(example, form)

    @lru_cache(maxsize=20_000)  # noqa: B019 (one tokeniser lives as long as the process)
    def _remembered(self, example: Example, form: TextForm) -> Pair:
        return super().pair(example, form)


@cache
def process_session() -> SharedSession:
    """The session of this process: one base and one tokeniser for all its runs."""
    return SharedSession()


@cache
def judge_session() -> SharedSession:
    """Another one, to evaluate with: the first one's base stays loaded for training."""
    return SharedSession()
