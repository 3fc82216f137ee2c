from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.model.lora import Linear
from edge_client.engines.lean.probe import _Steps
from edge_client.engines.lean.round import TrainingRound
from edge_client.engines.lean.session import Session
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import Job
from edge_client.worker.main import run_job
from edge_client.worker.process import WorkerProcess
from tests.fakes.plans import with_mode
from wire.run import Personal

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
LIBRARY_BYTES = 700 << 20


@pytest.mark.parametrize(
    ("scope", "changes"),
    [
        ("all", {}),
        ("all", {"checkpointing": True, "format": "int8"}),
        ("all", {"frozen_encoder": True}),
        ("decoder", {"cache": "int8", "compute": "bf16"}),
        ("decoder", {"ranks": ()}),
    ],
)
def test_a_probe_measures_every_way(
    make_job: Callable[..., Job], tmp_path: Path, scope: str, changes: dict[str, Any]
) -> None:
    """Memory and time of a step come out, nothing is written, and the base stays for the job that follows."""
    ranks = (0,) if changes.get("ranks") == () else (3, 0, 2)
    job = make_job("probe", ranks, {"scope": scope})
    ways = {name: value for name, value in changes.items() if name != "ranks"}
    job = msgspec.structs.replace(job, plan=with_mode(job.plan, **ways))
    before, session = sorted(tmp_path.rglob("*")), Session()

    values = run_job(job, LeanEngine(session))

    assert values["peak_bytes"] >= resident_bytes() // 2
    assert 0 < values["step_s"] < 60
    assert sorted(tmp_path.rglob("*")) == before
    assert session._base is session.base(job)


@pytest.mark.parametrize(
    "personal",
    [
        Personal(rank=2),
        Personal(rank=2, method="ditto"),
        Personal(rank=2, method="fedrep", local_blocks=1),
        Personal(rank=2, method="fedrep", local_blocks=1, when="after"),
    ],
)
def test_local_strands_lie_in_a_probe_as_in_a_round(
    make_job: Callable[..., Job], tmp_path: Path, personal: Personal
) -> None:
    """Where they have steps of their own a probe had them all the same, or lacked those that lie still."""
    settings = {"trains_a": True, "personal": personal}
    probed = _Steps(make_job("probe", settings=settings), Session())  # type: ignore[arg-type]  # a ProbeJob
    job = make_job(settings=settings, trains="both", starts=True, personal_path=str(tmp_path / "strands"))
    trained = TrainingRound(job, Session())  # type: ignore[arg-type]  # a TrainJob

    assert [_beside(linear) for linear in probed._model.linears.values()] == [
        _beside(linear) for linear in trained.model.linears.values()
    ]


def _beside(linear: Linear) -> tuple[int, bool] | None:
    """Rank of the strands beside a weight's own, and whether they are trained."""
    return None if linear.beside is None else (len(linear.beside.a), linear.beside.a.requires_grad)


async def test_what_a_library_takes_is_measured_apart_from_the_step(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A true worker that holds 700 MiB before it begins, as a build of torch for CUDA does: they are the imports', and
    what the step takes above them stays what it is without the library."""
    job = make_job("probe", (3, 0, 2), {"scope": "all"})
    taken = []
    for size_bytes in (0, LIBRARY_BYTES):
        folder = tmp_path / str(size_bytes)
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(f"held = bytearray(b'x') * {size_bytes}\n")
        monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
        worker = WorkerProcess()
        values = (await worker.run_job(job, lambda progress: None)).values
        await worker.close()
        taken.append((values["imports_bytes"], values["peak_bytes"] - values["imports_bytes"]))

    (plain, step), (heavy, step_beside_it) = taken
    assert heavy - plain == pytest.approx(LIBRARY_BYTES, rel=0.05)
    assert step_beside_it == pytest.approx(step, abs=32 << 20)
