"""Disk for the frozen encoder's output, and in which dtype a round's share of it fits there.

With `scope = "decoder"` the encoder's output is computed once per example and kept on disk. Per token it takes d_model
numbers: 2 bytes each in bf16; in int8 1 byte each and a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import CacheDtype
from edge_client.jobs.sizes import entry_bytes
from wire.run import RunInfo


@dataclass(frozen=True, slots=True)
class CacheBudget:
    """Disk for encoder outputs, and how many examples ask for it.

    Attributes:
        limit_bytes: what the cache may take, 0 for none.
        n_train: the board's training examples, None where that is not known, which counts as plenty.
        n_evaluated: held-out examples that are looked at in every round.
    """

    limit_bytes: int = 0
    n_train: int | None = None
    n_evaluated: int = 0


NO_CACHE = CacheBudget()


def cache_dtype(run: RunInfo, base: T5Config, budget: CacheBudget) -> CacheDtype:
    """How a run's encoder output is kept: in bf16 if a round's distinct examples, each as long as the run allows, then
    fit, else in int8, "none" where not even that fits, or where the encoder is trained."""
    if run.settings.scope != "decoder" or not budget.limit_bytes:
        return "none"
    n_examples = distinct_examples(run, budget)
    dtypes: tuple[CacheDtype, ...] = ("bf16", "int8")
    for dtype in dtypes:
        if n_examples * entry_bytes(run.settings.max_source_tokens, base.d_model, dtype) <= budget.limit_bytes:
            return dtype
    return "none"


def distinct_examples(run: RunInfo, budget: CacheBudget) -> int:
    """Examples that a round looks at."""
    n_places = run.settings.local_steps * run.settings.batch
    return budget.n_evaluated + (n_places if budget.n_train is None else min(n_places, budget.n_train))
