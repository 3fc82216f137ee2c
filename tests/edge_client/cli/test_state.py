"""`edge-client status`: what it says of a client that runs, and its exit status for those who watch it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_client.cli.main import run
from edge_client.errors import ExitCode
from edge_client.host.condition.condition import Condition
from edge_client.state.folder import StateFolder
from edge_client.state.status import StatusFile


@pytest.mark.parametrize(
    ("is_running", "is_online", "status"),
    [(True, True, ExitCode.OK), (True, False, ExitCode.UNREACHABLE), (False, True, ExitCode.CONFIG)],
)
def test_status_checks_for_containers(
    tmp_path: Path, is_running: bool, is_online: bool, status: ExitCode, capsys: Any
) -> None:
    """The exit status says whether a client runs here and reaches its server; what it does is printed all the same."""
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    StatusFile(folder).update(at_once=True, phase="train", server="https://192.0.2.7", online=is_online)
    if not is_running:
        folder.unlock()

    assert run(["status", "--state", str(folder.path)]) == ExitCode.OK
    assert run(["status", "--state", str(folder.path), "--check"]) == status
    assert capsys.readouterr().out.count("phase     train") == 2


def test_status_says_why_a_running_client_pauses(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """And how hot the board is, and what slows it down, as it is when a person asks."""
    condition = Condition(temperature_c=71.2, sensor="cpu-thermal", slowed_by=("under-voltage",))
    monkeypatch.setattr("edge_client.cli.state.read_condition", lambda: condition)
    folder = StateFolder(tmp_path / "state")
    folder.lock()
    try:
        StatusFile(folder).update(at_once=True, phase="pause", waits="71.2 °C, waits for below 65 °C")
        assert run(["status", "--state", str(folder.path)]) == ExitCode.OK
        text = capsys.readouterr().out
        assert run(["status", "--state", str(folder.path), "--json"]) == ExitCode.OK
        facts = json.loads(capsys.readouterr().out)
    finally:
        folder.unlock()

    assert "pauses    71.2 °C, waits for below 65 °C\n" in text
    assert "heat      71.2 °C (cpu-thermal)\nslowed    now by under-voltage\n" in text
    assert (facts["waits"], facts["condition"]["temperature_c"]) == ("71.2 °C, waits for below 65 °C", 71.2)
