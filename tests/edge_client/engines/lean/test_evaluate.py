from __future__ import annotations

import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from braid_common.metrics import SCORES, metric
from braid_common.text_form import TextForm
from edge_client.engines.contract import Host
from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.generate import Writer
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.evaluation.metrics import rouge
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.frames import read_frame, write_frame
from edge_client.jobs.messages import Done, Event, Failed, Job, Progress
from edge_client.worker.main import _failed, run_job

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def test_evaluation_of_the_frozen_factors_alone(make_job: Jobs) -> None:
    """An adapter without bases evaluates: the loss is the one that training reports for the received version."""
    received = train(make_job(), Session())["held_out_loss"]
    job = make_job("evaluate", ranks=(0,), rouge=True)

    values = run_job(job, LeanEngine(Session()))

    assert values["loss"] == pytest.approx(received, rel=1e-6)
    assert all(0 <= values[kind] <= 1 for kind in ("rouge1", "rouge2", "rougeL"))
    assert values["n_examples"] >= 1


def test_the_last_progress_is_the_result(make_job: Jobs) -> None:
    """What a person saw last is the mean over all texts that is told next, not the loss of the last few of them."""
    told: list[Progress] = []

    values = run_job(make_job("evaluate", ranks=(0,), rouge=True), LeanEngine(Session(Host(emit=told.append))))

    losses = [event.loss for event in told if event.phase == "evaluate" and event.loss]
    assert losses[-1] == pytest.approx(values["loss"], abs=1e-12)


def test_the_base_is_scored_beside_a_version(make_job: Jobs) -> None:
    """The base has the scores of an evaluation by itself, under its own names; the version's are no others."""
    session = Session()
    version = make_job("evaluate", ranks=(0,), rouge=True)
    alone = run_job(msgspec.structs.replace(version, adapter_path=""), LeanEngine(session))

    values = run_job(msgspec.structs.replace(version, beside_base=True), LeanEngine(session))

    for score in SCORES:
        assert values[metric("base", score)] == alone[score]
    assert values["loss"] == run_job(version, LeanEngine(session))["loss"] != values["base_loss"]


def test_rouge_of_known_texts() -> None:
    """ROUGE is F1 in 0…1: equal texts have 1, a shared half has 0.5, an empty answer 0."""
    scores = rouge([("one two three four",), ("alpha beta",), ("gamma",)], ["one two three four", "alpha delta", ""])

    assert scores["rouge1"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores["rouge2"] == pytest.approx(1 / 3)


def test_of_several_references_the_nearest_counts_for_each_kind() -> None:
    """As rouge_score's `score_multi` has it: the best F1 of any reference, by kind; the order does not matter."""
    references = ("one two three four", "alpha beta gamma delta", "nothing like it")
    answer = "one two gamma delta"

    several = rouge([references], [answer])

    alone = [rouge([(reference,)], [answer]) for reference in references]
    assert several == {kind: max(scores[kind] for scores in alone) for kind in several}
    assert several == rouge([references[::-1]], [answer])
    assert several["rouge1"] == pytest.approx(0.5)


def test_unpacked_weights_write_the_same(make_job: Jobs, base_folder: Path) -> None:
    """Keeping weights unpacked while writing changes speed only."""
    adapter = Path(make_job().adapter_path)
    texts = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9"]

    answers = [
        Writer(base_folder, adapter, format="int8", form=TextForm(max_target_tokens=8), spare_bytes=spare).write(texts)
        for spare in (0, 1 << 30)
    ]

    assert answers[0] == answers[1]
    assert Writer(base_folder, form=TextForm(max_target_tokens=8)).write(texts) != answers[0]


def test_worker_answers_jobs_in_turn(make_job: Jobs) -> None:
    """The real process: progress and an answer per job, errors as Failed, and status 0 when its input ends."""
    good = make_job(threads=1)
    bad = msgspec.structs.replace(good, data=DataSpec("/nowhere/text.jsonl"))
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_client.worker.main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None

    answers: list[Event] = []
    for job in (bad, good):
        write_frame(process.stdin, msgspec.msgpack.encode(job))  # type: ignore[arg-type]
        while True:
            frame = read_frame(process.stdout)  # type: ignore[arg-type]
            assert frame is not None
            answers.append(msgspec.msgpack.decode(frame, type=Event))  # type: ignore[arg-type]
            if not isinstance(answers[-1], Progress):
                break
    process.stdin.close()

    assert process.wait(30) == 0
    process.stdout.close()
    failed, done = (event for event in answers if not isinstance(event, Progress))
    assert isinstance(failed, Failed) and failed.exit_code == 4 and "/nowhere" in failed.message
    assert isinstance(done, Done) and done.values["n_examples"] == 24
    assert any(isinstance(event, Progress) and event.peak_bytes > 0 for event in answers)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_killed_worker_loses_nothing(make_job: Jobs, tmp_path: Path, number: signal.Signals, status: int) -> None:
    """Killed in mid-training, gently or not, another worker finishes from the saved training with the same bytes."""
    job = make_job(threads=1, settings={"local_steps": 60}, training_state_path=str(tmp_path / "place"))
    train(msgspec.structs.replace(job, training_state_path=""), Session())
    whole = Path(job.result_path).read_bytes()
    Path(job.result_path).unlink()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_client.worker.main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    write_frame(process.stdin, msgspec.msgpack.encode(job))  # type: ignore[arg-type]

    phases: list[str] = []
    while phases[-2:] != ["evaluate", "train"]:  # the received adapter is evaluated and the first place saved
        event = msgspec.msgpack.decode(read_frame(process.stdout) or b"", type=Event)  # type: ignore[arg-type]
        assert isinstance(event, Progress)
        phases.append(event.phase)
    process.send_signal(number)

    assert process.wait(30) == status
    assert not Path(job.result_path).exists()
    process.stdin.close()
    process.stdout.close()
    train(job, Session())
    assert Path(job.result_path).read_bytes() == whole


def test_worker_dies_with_its_parent(make_job: Jobs) -> None:
    """When the network process is killed, its worker ends too, even while its input stays open."""
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'edge_client.worker.main'])"
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None and parent.stdout is not None
    job = msgspec.structs.replace(make_job(), data=DataSpec("/nowhere/text.jsonl"))
    write_frame(parent.stdin, msgspec.msgpack.encode(job))  # type: ignore[arg-type]
    assert read_frame(parent.stdout) is not None  # type: ignore[arg-type]  # the worker is up

    parent.kill()

    assert parent.wait(30) == -signal.SIGKILL
    readable, _, _ = select.select([parent.stdout], [], [], 30)
    assert readable and parent.stdout.read() == b""  # the pipe's last writer is gone
    parent.stdin.close()
    parent.stdout.close()


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (MemoryError(), 6),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), 6),
        (RuntimeError("shapes differ"), 1),
    ],
)
def test_unexpected_errors_have_exit_codes(error: Exception, exit_code: int) -> None:
    """Out of memory is told apart from a bug, whichever way torch says it."""
    failed = _failed(error)

    assert failed.exit_code == exit_code
    assert failed.hint
