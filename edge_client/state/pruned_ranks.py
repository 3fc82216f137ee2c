"""Pruned ranks, kept from round to round: a strand that a board has given up is not taken again.

HetLoRA (arXiv 2401.06432, section 3): a pruned rank is the client's rank from then on. At the end of a round that
prunes, just before the result, the worker writes the ranks of all weights that were pruned so far to `job.pruned_path`.
Later rounds of the run begin at no more, whatever fits.

The file has two generations: what held before its round, and what holds after it. A round that is begun again, because
the board died or the server lost its update, begins at the former, as it did the first time. Once a result is there,
its ranks count, whether the server takes the update, refuses it or has closed the round.

Ranks of another run, manifest or device mean nothing and are left out; the next round's take their place. Within a run
they hold whatever becomes of the plan: they are limits, so a smaller plan stays as it is, a larger one is cut, and of a
weight that a plan leaves out the limit waits for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from braid_common.atomic_file import write_atomically
from braid_common.json_file import read_small
from edge_client.errors import disk_errors
from edge_client.jobs.messages import TrainJob
from wire.run import RunInfo

_Ranks = dict[str, Annotated[int, Meta(ge=1)]]


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranks by weight, of those that were pruned; `crc32` is of the rest."""

    key: str
    round: int
    before: _Ranks
    after: _Ranks
    crc32: int = 0


def read_pruned(path: Path, run: RunInfo, board_id: str, round_id: int) -> dict[str, int] | None:
    """The ranks that rounds before this one left weights at, by name: without those of weights that were never pruned,
    and empty where the run does not prune. None where the file is damaged."""
    if not run.settings.pruning or not path.exists():
        return {}
    file = _sound(path)
    if file is None:
        return None
    if file.key != _key(run, board_id):
        return {}
    return file.after if round_id > file.round else file.before


def keep_pruned(job: TrainJob, sent: Mapping[str, int]) -> None:
    """Write the ranks at which weights are `sent`, where these are below the plan's. Raises DiskError.

    A damaged file stays: the next plan finds it, and says so.
    """
    path = Path(job.pruned_path)
    before = read_pruned(path, job.run, job.board_id, job.spec.round) if job.pruned_path else None
    if before is None:
        return
    planned = zip(job.run.weights, job.plan.ranks, strict=True)
    pruned = {weight.name: sent[weight.name] for weight, rank in planned if sent.get(weight.name, rank) < rank}
    file = _File(key=_key(job.run, job.board_id), round=job.spec.round, before=before, after=before | pruned)
    with disk_errors(path):
        write_atomically(path, msgspec.json.encode(msgspec.structs.replace(file, crc32=_checksum(file))))


def _sound(path: Path) -> _File | None:
    file = read_small(path, _File)
    return file if file is not None and file.crc32 == _checksum(file) else None


def _key(run: RunInfo, board_id: str) -> str:
    return f"{run.run_id} {run.manifest} {board_id}"


def _checksum(file: _File) -> int:
    """A flipped bit in a digit is sound JSON, and would cost strands for the rest of the run."""
    return zlib.crc32(msgspec.json.encode(msgspec.structs.replace(file, crc32=0)))
