"""A training worker without torch: speaks the real frames, writes real messages full of zeros.

Started by tests in place of edge_client.worker. Flags: --kill-once FILE (SIGKILL itself at its first training job, FILE
remembers), --fail CODE (answer every job with a Failed), --steps N, --hang (never finish training), --log FILE (one
line per job: kind, round, version, strands, cache and its limit).
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from edge_client.frames import read_frame, write_frame
from edge_client.jobs import Done, Failed, Job, Progress
from wire.atomic_file import write_atomically
from wire.codec import encode
from wire.messages import NamedTensor, Profile, Tensor, Update, UpdatePart


def tensor(rows: int, columns: int) -> Tensor:
    """A zero matrix (rows, columns)."""
    return Tensor(dtype="fp32", shape=(rows, columns), data=bytes(4 * rows * columns))


def profile(job: Job) -> Profile:
    run = job.run
    sketches = tuple(
        NamedTensor(name=weight.name, tensor=tensor(min(run.max_rank, weight.rows, weight.columns), weight.columns))
        for weight in run.weights
    )
    return Profile(protocol=1, run_id=run.run_id, manifest=run.manifest, n_examples=3, sketches=sketches)


def update(job: Job) -> Update:
    parts = tuple(
        UpdatePart(name=weight.name, b=tensor(weight.rows, rank))
        for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True)
        if rank
    )
    return Update(
        protocol=1,
        run_id=job.run.run_id,
        round=job.task.round,
        version=job.task.version,
        manifest=job.run.manifest,
        n_examples=3,
        parts=parts,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill-once", type=Path)
    parser.add_argument("--fail", type=int)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--log", type=Path)
    flags = parser.parse_args()

    def say(event: object) -> None:
        write_frame(sys.stdout.buffer, msgspec.msgpack.encode(event))

    while (frame := read_frame(sys.stdin.buffer)) is not None:
        job = msgspec.msgpack.decode(frame, type=Job)
        if flags.log:
            with flags.log.open("a") as log:
                log.write(f"{job.kind} {job.task.round} {job.task.version} {sum(job.plan.ranks)} ")
                log.write(f"{job.plan.cache} {job.cache_path or '-'} {job.cache_limit_bytes}\n")
        if flags.fail:
            say(Failed(exit_code=flags.fail, message="the fake worker fails", hint="as it was told"))
            continue
        if job.plan.cache != "none":
            say(Progress(phase="encode", step=3, steps=3, loss=0.0, tokens_per_s=9.0, peak_bytes=1 << 20))
        for step in range(1, flags.steps + 1):
            say(Progress(phase=job.kind, step=step, steps=flags.steps, loss=2.0, tokens_per_s=9.0, peak_bytes=1 << 20))
        if flags.kill_once and job.kind == "train" and not flags.kill_once.exists():
            flags.kill_once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while flags.hang and job.kind == "train":
            time.sleep(60)
        if job.kind == "evaluate":
            say(Done(values={"loss": 1.5, "n_examples": 2.0, "rouge1": 0.3, "rouge2": 0.2, "rougeL": 0.25}))
            continue
        message = profile(job) if job.kind == "profile" else update(job)
        write_atomically(Path(job.result_path), encode(message))
        say(Done(values={"loss": 2.0, "held_out_loss": 1.9, "n_examples": 3.0, "tokens_per_s": 9.0}))


if __name__ == "__main__":
    main()
