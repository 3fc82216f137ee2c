"""What a simulated server sends: adapters as files, whole or as differences, as aggregator.downloads.adapters makes
them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aggregator.downloads.patches import Differences
from aggregator.merge.rules import Rule
from aggregator.merge.state import AdapterState
from edge_client.jobs.messages import AdapterJob, TrainJob
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPart, AdapterPatch, Dtype


class Downloads:
    """One run's. A board that keeps files (`Job.held_path`) is sent the difference to the version that it holds, where
    that is smaller."""

    def __init__(self, rule: Rule[Any], dtype: Dtype) -> None:
        self._rule, self._dtype = rule, dtype
        self._differences = Differences()
        self._held: dict[str, AdapterState] = {}

    def send(self, job: AdapterJob, state: AdapterState) -> int:
        """Write the job's adapter, cut to its plan's ranks; bytes of the file."""
        parts = self._rule.cut(state, job.plan.ranks, self._dtype)
        run = job.run
        whole = Adapter(
            protocol=PROTOCOL_VERSION, run_id=run.run_id, version=state.version, manifest=run.manifest, parts=parts
        )
        data = encode(whole)
        if job.held_path in self._held:
            difference = self._difference(job, state, parts)
            data = data if difference is None else min(data, encode(difference), key=len)
        return Path(job.adapter_path).write_bytes(data)

    def keep(self, jobs: Sequence[TrainJob], state: AdapterState) -> None:
        """The boards keep what they were sent of `state`."""
        for job in jobs:
            if job.held_path:
                self._held[job.held_path] = state
                Path(job.adapter_path).replace(job.held_path)

    def _difference(self, job: AdapterJob, state: AdapterState, parts: Sequence[AdapterPart]) -> AdapterPatch | None:
        before, ranks, run = self._held[job.held_path], job.plan.ranks, job.run
        held = self._rule.cut(before, ranks, self._dtype)
        changes = self._differences.parts(held, parts, self._rule.cut(state, ranks, "fp32"))
        if changes is None:
            return None
        return AdapterPatch(
            since=before.version,
            protocol=PROTOCOL_VERSION,
            run_id=run.run_id,
            version=state.version,
            manifest=run.manifest,
            parts=changes,
        )
