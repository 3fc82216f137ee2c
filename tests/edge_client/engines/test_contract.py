"""Engines are found by name, and loaded only when a job asks for them."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from edge_client.engines import ENGINES, open_engine
from edge_client.engines.contract import Host
from edge_client.errors import ConfigError, ExitCode
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import Done, Failed, Job, Plan, ProbeJob, TrainingMode
from edge_client.worker.main import _answer, _Engines
from tests.fakes.runs import TINY_T5, run_of
from wire.messages import RoundSpec


def probe_of(engine: str) -> bytes:
    """A probe for that engine, as it comes through the pipe."""
    run = run_of(TINY_T5, {})
    mode = TrainingMode(format="fp32", compute="fp32", micro_batch=1)
    plan = Plan(mode=mode, ranks=(), predicted_bytes=0, expected_peak_bytes=0, budget_bytes=0)
    spec = RoundSpec(round=1, version=1)
    job = ProbeJob(base_folder="", data=DataSpec(""), run=run, spec=spec, plan=plan, engine=engine)
    return msgspec.msgpack.encode(job)


class Counting:
    """An engine that counts its jobs."""

    def __init__(self) -> None:
        self.n_jobs = 0

    def run(self, job: Job) -> dict[str, float]:
        self.n_jobs += 1
        return {"n_jobs": float(self.n_jobs)}


def test_an_unknown_engine_is_one_clear_error() -> None:
    """Its name, and those that there are; the worker answers it and goes on."""
    with pytest.raises(ConfigError, match="'heavy'") as caught:
        open_engine("heavy", Host())

    assert "lean" in caught.value.hint
    answer = _answer(probe_of("heavy"), _Engines(Host()))
    assert answer == Failed(exit_code=int(ExitCode.CONFIG), message=caught.value.message, hint=caught.value.hint)


def test_an_engine_stays_until_a_job_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has loaded serves the next job; there is memory for one engine."""
    opened: list[str] = []

    def open_counting(name: str, host: Host) -> Counting:
        opened.append(name)
        return Counting()

    monkeypatch.setattr("edge_client.worker.main.open_engine", open_counting)
    engines = _Engines(Host())

    answers = [_answer(probe_of(name), engines) for name in ("a", "a", "b", "a")]

    assert answers == [Done(values={"n_jobs": n}) for n in (1.0, 2.0, 1.0, 1.0)]
    assert opened == ["a", "b", "a"]


def test_the_contract_and_the_worker_load_no_tensor_library() -> None:
    """torch must come after the process has told malloc and OpenMP how to behave."""
    script = "import sys, edge_client.engines.contract, edge_client.worker.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert not {"torch", "numpy", "safetensors"} & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_opens(name: str) -> None:
    """Each name leads to a module that makes an engine, with nothing loaded yet."""
    assert callable(open_engine(name, Host()).run)
