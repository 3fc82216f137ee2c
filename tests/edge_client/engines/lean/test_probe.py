from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_client.engines.lean.engine import LeanEngine
from edge_client.engines.lean.session import Session
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import Job
from edge_client.worker.main import run_job
from tests.fakes.plans import with_mode

pytestmark = pytest.mark.slow


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
