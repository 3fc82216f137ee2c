"""The training process over its real pipe, with jobs that need no tensor library."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

import builtin_base
from braid_common.text_form import TextForm
from edge_client.errors import ExitCode
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.frames import read_frame, write_frame
from edge_client.jobs.messages import Done, Failed, MeasureJob, Plan, ProbeJob, TrainingMode
from edge_client.worker.process import worker_command
from tests.fakes.runs import TINY_T5, run_of
from wire.messages import RoundSpec
from wire.text_lengths import TextLengths

TIME_LIMIT_S = 60


def frame(body: bytes) -> bytes:
    """A body as it goes through the pipe."""
    stream = io.BytesIO()
    write_frame(stream, body)
    return stream.getvalue()


def job_of(engine: str) -> bytes:
    """A probe that names an engine."""
    plan = Plan(
        mode=TrainingMode(format="fp32", compute="fp32", micro_batch=1),
        ranks=(),
        predicted_bytes=0,
        expected_peak_bytes=0,
        budget_bytes=0,
    )
    run, spec = run_of(TINY_T5, {}), RoundSpec(round=1, version=1)
    job = ProbeJob(base_folder="", data=DataSpec(""), run=run, spec=spec, plan=plan, engine=engine)
    return msgspec.msgpack.encode(job)


def work_on(pipe: bytes, **environment: str) -> tuple[int, list[Any], str]:
    """The exit status of a worker that reads these bytes, its events, and what it wrote for people."""
    done = subprocess.run(
        worker_command(), input=pipe, capture_output=True, timeout=TIME_LIMIT_S, env=os.environ | environment
    )
    stream, events = io.BytesIO(done.stdout), []
    while (body := read_frame(stream)) is not None:
        events.append(msgspec.msgpack.decode(body, type=Failed | Done))
    return done.returncode, events, done.stderr.decode()


def test_a_job_that_cannot_be_done_is_answered_and_the_next_one_read() -> None:
    """An engine that is not there, then bytes that are no job, then another job: three answers, and a clean end."""
    status, events, _ = work_on(frame(job_of("heavy")) + frame(b"\xc1 no job") + frame(job_of("heavier")))

    assert status == 0
    assert [event.exit_code for event in events] == [ExitCode.CONFIG, ExitCode.INTERNAL, ExitCode.CONFIG]
    assert "'heavy'" in events[0].message and "'heavier'" in events[2].message
    assert "a bug of ours" in events[1].hint


def test_texts_are_measured_without_torch(tmp_path: Path) -> None:
    """The answer has the lengths that a report tells; the tensor library is not loaded for them."""
    data = tmp_path / "text.jsonl"
    data.write_text('{"source": "Pump 3 lost pressure.", "target": "Worn seal."}\n' * 3)
    no_torch = tmp_path / "torch.py"
    no_torch.write_text("raise ImportError('torch was loaded')")
    job = MeasureJob(base_folder=str(builtin_base.folder()), data=DataSpec(str(data)), form=TextForm())

    status, (done, failed), _ = work_on(
        frame(msgspec.msgpack.encode(job))
        + frame(msgspec.msgpack.encode(msgspec.structs.replace(job, data=DataSpec(str(tmp_path / "none.jsonl"))))),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )

    assert status == 0 and TextLengths.from_values(done.values).n_examples == 3
    assert failed.exit_code == ExitCode.DATA


@pytest.mark.parametrize("n_bytes", [1, 3, 40])
def test_a_pipe_that_breaks_in_a_frame_ends_the_worker(n_bytes: int) -> None:
    """The network side was killed while it sent a job: status 1, one line, and no event of half a job."""
    status, events, told = work_on(frame(job_of("heavy"))[:n_bytes])

    assert (status, events) == (1, [])
    assert told.startswith("training worker: ") and "Traceback" not in told


def test_without_a_job_the_worker_ends_in_silence() -> None:
    assert work_on(b"") == (0, [], "")
