"""The worker as its parent starts it."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from braid_common.text_form import TextForm
from edge_client.agent.settings import JoinSettings
from edge_client.host.priority import NICE
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import MeasureJob
from edge_client.worker.process import WorkerProcess

FAKE = Path(__file__).parents[2] / "fakes" / "worker.py"


async def test_the_worker_makes_way_and_its_parent_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nicer than the client, which has to answer while it trains; without a word to the contrary by NICE."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = min(19, own + NICE)
    worker = WorkerProcess([sys.executable, str(FAKE)], nice=wanted)
    try:
        await worker.run_job(MeasureJob(base_folder="", data=DataSpec(""), form=TextForm()), lambda progress: None)
        assert worker._process is not None
        assert os.getpriority(os.PRIO_PROCESS, worker._process.pid) == wanted
    finally:
        await worker.close()

    assert os.getpriority(os.PRIO_PROCESS, 0) == own
    assert {field.name: field.default for field in fields(JoinSettings)}["nice"] == NICE
