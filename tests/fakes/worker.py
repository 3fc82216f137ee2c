"""A training worker without torch: speaks the real frames, writes real messages full of zeros.

Started by tests in place of edge_client.worker.main. A training job has as many steps as the run says; its training
is saved after every step, as the real one does, and resumed from, in a text file. Flags, faults first:

--fail CODE           answer every job with a Failed
--hang                never finish training
--hold FILE           do not finish training while there is this file
--stall FILE          make this file after the first step of training, once, and go on when it is gone or a pause is
                      asked for; SIGTERM then ends the worker between two steps, as it ends the real one
--kill KIND[:STEP]    SIGKILL itself at a job of this kind, a training job after so many steps; once per --kill
--signal NAME         the signal that --kill sends, SIGKILL unless it is given
--fail-once KIND      answer one job of this kind with a Failed that says that memory ran out, or what --status says
--status CODE         of --fail-once
--prune               send every weight of two strands or more with one less, and keep that as the real one does; --kill
                      kept dies between that file and the result
--took KIND=BYTES     what a probe says that it took, by the plan's format; without it, what was predicted
--imports BYTES       what a probe says that its worker held before it loaded the base
--tokens S T          lengths of all sources and targets, where they are measured
--memory FILE         remembers which of the faults have happened
--log FILE            one line per job: kind, round, version, strands, format, micro-batch, first step, cache and limit
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from braid_common.atomic_file import write_atomically
from edge_client.errors import ClientError
from edge_client.jobs.frames import read_frame, write_frame
from edge_client.jobs.messages import (
    Done,
    EngineJob,
    EvaluateJob,
    Failed,
    Job,
    MeasureJob,
    Parked,
    ProbeJob,
    ProfileJob,
    Progress,
    TrainJob,
)
from edge_client.state.pruned_ranks import keep_pruned
from edge_client.worker.pause import Pause
from wire.codec import encode
from wire.messages import NamedTensor, Profile, Tensor, Update, UpdatePart
from wire.text_lengths import PERCENTS, TextLengths


def tensor(rows: int, columns: int) -> Tensor:
    """A zero matrix (rows, columns)."""
    return Tensor(dtype="fp32", shape=(rows, columns), data=bytes(4 * rows * columns))


def profile(job: ProfileJob) -> Profile:
    run = job.run
    sketches = tuple(
        NamedTensor(name=weight.name, tensor=tensor(min(run.max_rank, weight.rows, weight.columns), weight.columns))
        for weight in run.weights
    )
    scores = () if run.settings.importance == "sketch" else (1.0,) * len(sketches)
    return Profile(protocol=1, run_id=run.run_id, manifest=run.manifest, n_examples=3, sketches=sketches, scores=scores)


def update(job: TrainJob, ranks: Mapping[str, int]) -> Update:
    parts = tuple(
        UpdatePart(name=weight.name, b=tensor(weight.rows, ranks[weight.name]))
        for weight in job.run.weights
        if weight.name in ranks
    )
    return Update(
        protocol=1,
        run_id=job.run.run_id,
        round=job.spec.round,
        version=job.spec.version,
        version_digest=job.spec.version_digest,
        manifest=job.run.manifest,
        n_examples=3,
        parts=parts,
    )


def sent_ranks(job: TrainJob, *, prune: bool) -> dict[str, int]:
    """Of the weights that were trained, with `prune` one strand less where there are two."""
    planned = zip(job.run.weights, job.plan.ranks, strict=True)
    return {weight.name: max(1, rank - prune) for weight, rank in planned if rank}


class Faults:
    """The faults of the flags that have not happened yet; a file remembers those that have, from worker to worker."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self._signal = signal.Signals[flags.signal]
        self._memory: Path | None = flags.memory
        self._kills = [f"kill {text}" for text in flags.kill]
        self._failures = [f"fail {text}" for text in flags.fail_once]

    def kill(self, point: str) -> None:
        """End as the kernel ends a process when memory runs out, if that is due at `point`."""
        if self._is_due(f"kill {point}", self._kills):
            os.kill(os.getpid(), self._signal)

    def fails(self, point: str) -> bool:
        return self._is_due(f"fail {point}", self._failures)

    def _is_due(self, fault: str, wanted: list[str]) -> bool:
        assert self._memory is not None or not wanted, "--memory is needed"
        if self._memory is None or wanted.count(fault) <= self._happened().count(fault):
            return False
        with self._memory.open("a") as file:
            file.write(f"{fault}\n")
        return True

    def _happened(self) -> list[str]:
        assert self._memory is not None
        return self._memory.read_text().splitlines() if self._memory.exists() else []


def measured(job: MeasureJob, tokens: tuple[int, int]) -> TextLengths:
    """Ten examples of equal length."""
    source, target = tokens
    return TextLengths(
        n_examples=10,
        n_measured=10,
        source_tokens=(source,) * len(PERCENTS),
        target_tokens=(target,) * len(PERCENTS),
        max_source_tokens=job.form.max_source_tokens,
        max_target_tokens=job.form.max_target_tokens,
        sources_cut=float(source > job.form.max_source_tokens),
        targets_cut=float(target > job.form.max_target_tokens),
    )


def say(event: object) -> None:
    write_frame(sys.stdout.buffer, msgspec.msgpack.encode(event))


def log_job(job: EngineJob, kind: str, first: int, path: Path) -> None:
    """Append a line about a job: its round, plan, first step and cache."""
    cache = ("", 0) if isinstance(job, ProbeJob) else (job.cache_path, job.cache_limit_bytes)
    with path.open("a") as log:
        log.write(f"{kind} {job.spec.round} {job.spec.version} {sum(job.plan.ranks)} ")
        log.write(f"{job.plan.mode.format} {job.plan.mode.micro_batch} {first} ")
        log.write(f"{job.plan.mode.cache} {cache[0] or '-'} {cache[1]}\n")


def read_difference(job: TrainJob | EvaluateJob) -> None:
    """Make an adapter of the one that the board holds and the difference, as the real worker does."""
    from edge_client.engines.adapter_patch import make_whole  # with numpy: two thirds of what a start costs

    ranks = job.plan.ranks if isinstance(job, TrainJob) else [0] * len(job.run.weights)
    make_whole(Path(job.adapter_path), Path(job.held_path), job.run, job.spec.version, ranks)


STOPS: list[int] = []
PAUSE = Pause(lambda: say(Parked()), lambda: bool(STOPS), sleep=lambda _: time.sleep(0.01))


def stall(path: Path) -> None:
    """Say that the first step is done, by a file, and stay there until it is taken away or a pause is asked for."""
    if not path.with_suffix(".done").exists():
        path.touch()
        while path.exists() and not PAUSE.is_wanted():
            time.sleep(0.01)
        path.unlink(missing_ok=True)
        path.with_suffix(".done").touch()


def begun(job: EngineJob) -> tuple[Path | None, int]:
    """The file that a job's training is saved in, and the steps that were done before."""
    saved = Path(job.training_state_path) if isinstance(job, TrainJob) and job.training_state_path else None
    return saved, int(saved.read_text()) if saved is not None and saved.exists() else 0


def take_steps(job: EngineJob, flags: argparse.Namespace, faults: Faults) -> None:
    """Go through a job's steps, saved and told one by one."""
    kind = str(job.__struct_config__.tag)
    saved, first = begun(job)
    steps = job.run.settings.local_steps
    for step in range(first, steps + 1):
        if saved is not None:
            saved.write_text(str(step))
        if flags.stall and kind == "train" and step == 1:
            stall(flags.stall)
        PAUSE.wait()
        if STOPS:
            sys.exit(0)
        say(Progress(phase=kind, step=step, steps=steps, loss=2.0, tokens_per_s=9.0, peak_bytes=1 << 20))
        faults.kill(f"{kind}:{step}")


def answer(job: EngineJob, flags: argparse.Namespace, faults: Faults) -> Done | Failed:
    """Do a job, unless a fault comes before."""
    kind = str(job.__struct_config__.tag)
    if flags.log:
        log_job(job, kind, begun(job)[1], flags.log)
    faults.kill(kind)
    if isinstance(job, TrainJob | EvaluateJob) and job.held_path:
        try:
            read_difference(job)
        except ClientError as error:
            return Failed(exit_code=int(error.exit_code), message=error.message, hint=error.hint)
    if flags.fail:
        return Failed(exit_code=flags.fail, message="the fake worker fails", hint="as it was told")
    if faults.fails(kind):
        return Failed(exit_code=flags.status, message="memory ran out while training", hint="as it was told")
    if isinstance(job, ProbeJob):
        took = dict(text.split("=") for text in flags.took)
        peak_bytes = float(took.get(job.plan.mode.format, job.plan.expected_peak_bytes))
        return Done(values={"peak_bytes": peak_bytes, "imports_bytes": flags.imports, "step_s": 0.1})
    if job.plan.mode.cache != "none":
        say(Progress(phase="encode", step=3, steps=3, loss=0.0, tokens_per_s=9.0, peak_bytes=1 << 20))
    take_steps(job, flags, faults)
    while flags.hang and kind == "train":
        time.sleep(60)
    while flags.hold and flags.hold.exists() and kind == "train":
        time.sleep(0.01)
    if isinstance(job, EvaluateJob):
        return Done(values={"loss": 1.5, "n_examples": 2.0, "rouge1": 0.3, "rouge2": 0.2, "rougeL": 0.25})
    if isinstance(job, ProfileJob):
        write_atomically(Path(job.result_path), encode(profile(job)))
    else:
        sent = sent_ranks(job, prune=flags.prune)
        if job.run.settings.pruning:
            keep_pruned(job, sent)
            faults.kill("kept")
        write_atomically(Path(job.result_path), encode(update(job, sent)))
    return Done(values={"loss": 2.0, "held_out_loss": 1.9, "n_examples": 3.0, "tokens_per_s": 9.0})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fail", type=int)
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--stall", type=Path)
    parser.add_argument("--kill", action="append", default=[])
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--fail-once", action="append", default=[])
    parser.add_argument("--status", type=int, default=6)
    parser.add_argument("--prune", action="store_true")
    parser.add_argument("--took", action="append", default=[])
    parser.add_argument("--imports", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, nargs=2, default=(8, 4))
    parser.add_argument("--memory", type=Path)
    parser.add_argument("--log", type=Path)
    flags = parser.parse_args()
    PAUSE.listen()
    if flags.stall:
        signal.signal(signal.SIGTERM, lambda number, frame: STOPS.append(number))
    faults = Faults(flags)
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        job = msgspec.msgpack.decode(frame, type=Job)
        if isinstance(job, MeasureJob):
            faults.kill("measure")
            say(Done(values=measured(job, flags.tokens).values()))
        else:
            say(answer(job, flags, faults))


if __name__ == "__main__":
    main()
