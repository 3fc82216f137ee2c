"""The frozen encoder's outputs that a job's decoder reads: computed once, kept on disk, read batch by batch.

While the encoder works the rest of the base is not in memory, unless the plan has room for both: a job asks for what it
needs first, and loads after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from edge_client.engines.lean.encoder_cache.encoder_pass import HIDDEN_BYTES, EncoderSpec, encode_sources
from edge_client.engines.lean.encoder_cache.store import EncoderCache, Origin, Source
from edge_client.engines.lean.model.batches import Batch
from edge_client.engines.lean.model.model import DTYPES
from edge_client.engines.lean.session import Meter, Session
from edge_client.errors import DiskError
from edge_client.host.worker_memory import resident_bytes, return_free_memory
from edge_client.jobs.messages import TextJob
from edge_client.jobs.sizes import LEAST_HIDDEN_BYTES

SOURCES_AT_ONCE = 512
"""Sources whose ids are in memory together while the cache is filled: 10 MB at 512 tokens each."""


class EncoderOutputs:
    """The encoder's outputs for one job. Without a cache in the job's plan it knows none, and the model encodes.

    Attributes:
        seconds: what the encoding that this job needed has taken.
        n_tokens: the source tokens of that encoding.
    """

    def __init__(self, job: TextJob, session: Session) -> None:
        self._job = job
        self._session = session
        self._compute = DTYPES[job.plan.mode.compute]
        self._device = session.torch_device(job)
        self._cache = _open_cache(job, session)
        self.seconds = 0.0
        self.n_tokens = 0

    def prepare(self, sources: Iterable[Source]) -> None:
        """Encode the sources that the cache lacks, and keep all of them until the job's end."""
        if self._cache is None:
            return
        remaining = iter(sources)
        while group := list(islice(remaining, SOURCES_AT_ONCE)):
            self._cache.keep(group)
            if missing := self._cache.missing(group):
                if not self._job.plan.kept_bytes:
                    self._session.release_base()
                self._encode(missing)

    def encoded(self, batch: Batch) -> Tensor | None:
        """The batch's encoder output (b, s, d) in the compute dtype, zeros on padding; None where the model is to
        encode. What was lost since `prepare` is encoded again."""
        return None if self._cache is None else self.encoded_sources(batch.sources, batch.source.shape[1])

    def encoded_sources(self, sources: Sequence[Source], width: int) -> Tensor | None:
        """The encoder output (b, width, d) of sources padded to `width` tokens, as `encoded` gives it of a batch."""
        if self._cache is None:
            return None
        outputs = {ids: self._cache.get(ids, self._compute) for ids in dict.fromkeys(sources)}
        if lost := [ids for ids, hidden in outputs.items() if hidden is None]:
            self._encode(lost, into=outputs)
        rows = [outputs[ids] for ids in sources]
        return stacked([row for row in rows if row is not None], width).to(self._device)

    def read_ahead(self, batches: Iterable[Batch]) -> None:
        """Ask the system to read what these batches will need, while others are computed."""
        if self._cache is not None:
            self._cache.read_ahead([ids for batch in batches for ids in batch.sources])

    def _encode(self, sources: Sequence[Source], into: dict[Source, Tensor | None] | None = None) -> None:
        cache = self._cache
        assert cache is not None

        def store(ids: Source, hidden: Tensor) -> None:
            is_kept = self._put(cache, ids, hidden)
            if into is not None:  # read back, so that it is rounded as it will be in the next epoch
                into[ids] = cache.get(ids, self._compute) if is_kept else hidden.clone()

        meter = Meter(self._session, "encode", len(sources))
        encode_sources(
            EncoderSpec(
                Path(self._job.base_folder),
                self._job.plan.mode.format,
                self._compute,
                self._device,
                self._session.whole_base(self._job),
            ),
            sources,
            store,
            tell=lambda n_done, n_tokens: meter.count(n_done, 0.0, n_tokens),
            check_stop=self._session.check_stop,
            hidden_bytes=self._hidden_bytes(),
        )
        self.seconds += meter.seconds
        self.n_tokens += sum(map(len, sources))
        return_free_memory()

    def _put(self, cache: EncoderCache, ids: Source, hidden: Tensor) -> bool:
        """Keep an output. A disk that does not take it costs time, for it is made again where it is needed."""
        try:
            is_kept = cache.put(ids, hidden)
        except DiskError as error:
            self._session.unsaved = error.message
            return False
        self._session.unsaved = ""
        return is_kept

    def _hidden_bytes(self) -> int:
        """Memory for the chunk of hidden states: a quarter of what the plan leaves, for others are beside it."""
        spare_bytes = self._job.plan.whole_peak_bytes - resident_bytes()
        return max(LEAST_HIDDEN_BYTES, min(HIDDEN_BYTES, spare_bytes // 4))


def _open_cache(job: TextJob, session: Session) -> EncoderCache | None:
    if job.plan.mode.cache == "none":
        return None
    origin = Origin(job.run.base.digest, job.plan.mode.format, job.plan.mode.compute, job.plan.mode.cache)
    return EncoderCache(Path(job.cache_path), origin, session.config(job).d_model, job.cache_limit_bytes)


def stacked(rows: Sequence[Tensor], width: int) -> Tensor:
    """(batch, width, d) of hidden states (tokens, d), zeros on padding, which no attention sees."""
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, width - row.shape[0])) for row in rows])
