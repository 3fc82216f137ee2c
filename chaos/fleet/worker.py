"""The training worker of a chaos board: the real frames over the pipe, the trivial model in the place of torch."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from braid_common.atomic_file import write_atomically
from chaos.fleet.trivial_model import profile, update, values
from edge_client.engines.adapter_patch import make_whole
from edge_client.errors import ClientError
from edge_client.jobs.frames import read_frame, write_frame
from edge_client.jobs.messages import (
    Done,
    EvaluateJob,
    Event,
    Failed,
    Job,
    MeasureJob,
    PersonalJob,
    ProbeJob,
    ProfileJob,
    TrainJob,
)
from wire.codec import decode, encode
from wire.messages import Adapter
from wire.text_lengths import PERCENTS, TextLengths


def answer(job: Job) -> Event:
    """Do a job."""
    try:
        return Done(values=_done(job))
    except ClientError as error:
        return Failed(exit_code=int(error.exit_code), message=error.message, hint=error.hint)


def _done(job: Job) -> dict[str, float]:
    if isinstance(job, MeasureJob):
        return dict(_lengths(job).values())
    if isinstance(job, ProbeJob):
        return {"peak_bytes": float(job.plan.expected_peak_bytes), "step_s": 0.1}
    if isinstance(job, ProfileJob):
        write_atomically(Path(job.result_path), encode(profile(job.run, job.board_id)))
        return dict(values())
    if isinstance(job, PersonalJob):
        return dict(values())
    adapter = _adapter(job)
    if isinstance(job, EvaluateJob):
        return {"loss": 1.5, "n_examples": 2.0, "rouge1": 0.3, "rouge2": 0.2, "rougeL": 0.25}
    sent = update(job.run, job.spec, adapter, job.plan.ranks, job.board_id)
    write_atomically(Path(job.result_path), encode(sent))
    return dict(values())


def _adapter(job: TrainJob | EvaluateJob) -> Adapter:
    path = Path(job.adapter_path)
    if job.held_path:
        ranks = job.plan.ranks if isinstance(job, TrainJob) else [0] * len(job.run.weights)
        make_whole(path, Path(job.held_path), job.run, job.spec.version, ranks)
    return decode(path.read_bytes(), Adapter)


def _lengths(job: MeasureJob) -> TextLengths:
    """Ten examples of equal length, that no run cuts."""
    return TextLengths(
        n_examples=10,
        n_measured=10,
        source_tokens=(8,) * len(PERCENTS),
        target_tokens=(4,) * len(PERCENTS),
        max_source_tokens=job.form.max_source_tokens,
        max_target_tokens=job.form.max_target_tokens,
        sources_cut=0.0,
        targets_cut=0.0,
    )


def main() -> None:
    """Answer jobs until the pipe ends."""
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        write_frame(sys.stdout.buffer, msgspec.msgpack.encode(answer(msgspec.msgpack.decode(frame, type=Job))))


if __name__ == "__main__":
    main()
