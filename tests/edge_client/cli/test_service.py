"""What the client's service may reach, as `doctor --service` finds it: each thing that can be closed, closed once."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_client.cli import service
from edge_client.cli.main import run
from edge_client.cli.service import Reach, examine_service, first_problem, service_lines
from edge_client.errors import ExitCode
from edge_client.host.torch_trial import Trial
from tests.edge_client.host.torch_build.boards import BOARDS


@pytest.fixture
def port() -> Iterator[int]:
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def unit(tmp_path: Path, port: int) -> Path:
    """A board's files, with the client's settings, state, text and a unit that all can be reached from."""
    root = BOARDS["Orin, JetPack 6.2"].lay_out(tmp_path)
    for name in ("state", "dev/nvgpu/igpu0", "proc/self", "data"):
        (root / name).mkdir(parents=True)
    for name in ("nvmap", "nvhost-ctrl-gpu", "nvgpu/igpu0/channel"):
        (root / "dev" / name).touch()
    (root / "proc/self/cgroup").write_text("0::/system.slice/edge-client-doctor.service\n")
    (root / "data/notes.jsonl").write_text("{}\n")
    (root / "config.toml").write_text(f'server = "http://127.0.0.1:{port}"\ndata = "{root}/data"\n')
    return root


def look(root: Path) -> dict[str, Reach]:
    found = examine_service(root / "state", root / "config.toml", root, {"INVOCATION_ID": "1"})
    return {reach.what: reach for reach in found}


def test_a_service_that_lacks_nothing_says_so(unit: Path) -> None:
    """Every line says what was found, from inside the unit."""
    found = look(unit)

    assert list(found) == ["service", "state", "settings", "data", "GPU", "server"]
    assert first_problem(list(found.values())) is None
    assert "inside edge-client-doctor.service" in found["service"].found
    assert "3 device nodes" in found["GPU"].found
    assert "2 files" in found["data"].found
    assert len(service_lines(list(found.values()))) == 6


def test_a_jetson_without_nodes_lacks_its_drop_in(unit: Path) -> None:
    """PrivateDevices= hides them all; a board that is no Jetson lacks nothing."""
    for node in (unit / "dev").rglob("*"):
        node.unlink() if node.is_file() else None

    assert "none of its GPU's device nodes" in look(unit)["GPU"].problem
    assert "jetson.conf" in look(unit)["GPU"].hint
    (unit / "etc/nv_tegra_release").unlink()
    assert "GPU" not in look(unit)


@pytest.mark.parametrize(
    ("number", "said"), [(1, "DeviceAllow="), (13, "SupplementaryGroups=")], ids=["EPERM", "EACCES"]
)
def test_a_node_that_is_closed_is_named_with_the_setting(
    number: int, said: str, unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit's device list and its groups refuse differently. A node of root's own does not count."""
    (unit / "dev/nvhost-sched-gpu").touch()
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if "nvhost" in str(path) or "sched" in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(service.os, "open", refuse)

    assert "nvhost-ctrl-gpu" in look(unit)["GPU"].problem
    assert said in look(unit)["GPU"].problem


def test_text_that_may_not_be_read_is_named(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, and which rights it lacks."""
    monkeypatch.setattr(service.os, "access", lambda path, mode: not str(path).endswith(".jsonl"))

    assert look(unit)["data"].problem == f"{unit}/data/notes.jsonl may not be read"
    assert "a+rX" in look(unit)["data"].hint


@pytest.mark.parametrize(
    ("change", "what", "said"),
    [
        ('server = "http://127.0.0.1:1"\n', "server", "127.0.0.1:1 cannot be reached"),
        ('server = "nonsense"\n', "server", "is not an address"),
        ("[[[", "settings", "is not TOML"),
        (None, "settings", "cannot be read"),
    ],
)
def test_settings_and_server_are_looked_at(change: str | None, what: str, said: str, unit: Path) -> None:
    """What `join` would end with, without joining."""
    path = unit / "config.toml"
    path.unlink() if change is None else path.write_text(change)

    assert said in look(unit)[what].problem


def test_a_state_folder_that_is_not_there_is_a_problem(unit: Path) -> None:
    (unit / "state").rmdir()

    assert "cannot be written" in look(unit)["state"].problem


def test_doctor_fails_for_what_the_service_lacks(unit: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 3, the line, and the same as JSON; without --service nothing of it is looked at."""
    monkeypatch.setattr("edge_client.cli.doctor.require_packages", lambda: None)
    monkeypatch.setattr("edge_client.cli.doctor.try_torch", lambda: Trial(version="2"))
    arguments = ["doctor", "--state", str(unit / "missing"), "--config", str(unit / "config.toml")]

    assert run(arguments) == ExitCode.OK
    capsys.readouterr()
    assert run([*arguments, "--service", "--json"]) == ExitCode.CONFIG

    output = capsys.readouterr()
    state = next(one for one in json.loads(output.out.splitlines()[0])["service"] if one["what"] == "state")
    assert "cannot be written" in state["problem"]
    assert "error: state:" in output.err
