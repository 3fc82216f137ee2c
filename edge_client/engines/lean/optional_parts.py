"""Parts of a training round that only some runs ask for. Each is loaded where it is asked for; others pay nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import UnsetType
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.engines.lean.model.model import Model
from edge_client.jobs.messages import TrainJob
from wire.run import Personal

if TYPE_CHECKING:
    from edge_client.engines.lean.gradients.keep import Keep
    from edge_client.engines.lean.gradients.nested import NestedRanks
    from edge_client.engines.lean.personal.local_strands import LocalStrands


def local_strands(job: TrainJob, model: Model) -> LocalStrands | None:
    """The strands of this board alone, beside the model's; None where it has none, and nothing is loaded for them."""
    personal = job.run.settings.personal
    if not (job.personal_path and isinstance(personal, Personal) and any(job.run.local_ranks)):
        return None
    if not personal.is_beside:
        return None
    from edge_client.engines.lean.personal.local_strands import LocalStrands

    return LocalStrands(job, model.linears)


def keep_penalty(job: TrainJob, trained: Mapping[str, Tensor]) -> Keep | None:
    """The penalty that holds the board near the received model; None where the run asks for none."""
    asked = job.run.settings.keep
    if isinstance(asked, UnsetType):
        return None
    from edge_client.engines.lean.gradients.keep import Keep, scores_of

    by_ranking = asked.importance == "scores"
    return Keep(trained, asked.weight, scores_of(job.run, job.plan.ranks, trained) if by_ranking else None)


def nested_ranks(job: TrainJob, model: Model) -> NestedRanks | None:
    """The cuts of the round's passes to fewer strands; None where every pass trains all of them."""
    n_ranks = job.run.settings.nested
    if isinstance(n_ranks, UnsetType):
        return None
    from edge_client.engines.lean.gradients.nested import NestedRanks

    seed = derive_seed(job.run.settings.seed, "nested", job.spec.round, job.board_id)
    return NestedRanks(model.linears, n_ranks, seed)
