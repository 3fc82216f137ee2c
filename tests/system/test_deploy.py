"""What lies in deploy/ works as it is: units verify, example settings parse, every flag and status exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from enum import IntEnum
from pathlib import Path

import click
import pytest

from aggregator.errors import ExitCode as ServerExitCode
from edge_client.agent.allowances import parse_limits
from edge_client.agent.settings import normalise_server, read_config
from edge_client.cli.main import group
from edge_client.errors import ExitCode

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("edge-client.service", "aggregator.service")
HEALABLE = {ExitCode.OK, ExitCode.INTERNAL, ExitCode.UNREACHABLE, ExitCode.DISK, ExitCode.LOCKED}
"""Statuses that another start may mend."""

NEW_IN_254 = ("RestartSteps", "RestartMaxDelaySec")
"""Settings that older systemd versions (Debian 12, JetPack 6) ignore with a warning."""


def rendered(unit: str, folder: Path) -> Path:
    """A copy of the unit whose program exists: any executable of the right name."""
    text = (DEPLOY / unit).read_text()
    for program in set(re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)):
        stand_in = folder / Path(program).name
        stand_in.write_text("#!/bin/sh\n")
        stand_in.chmod(0o755)
        text = text.replace(program, str(stand_in))
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith(NEW_IN_254))
    path = folder / unit
    path.write_text(text)
    return path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing to complain about."""
    path = rendered(unit, tmp_path)

    done = subprocess.run(["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True)

    complaints = [line for line in done.stderr.splitlines() if unit.removesuffix(".service") in line]
    assert complaints == []


def test_the_unit_restarts_only_what_restarting_can_mend() -> None:
    """RestartPreventExitStatus names every other status, and no status that is not ours."""
    text = (DEPLOY / "edge-client.service").read_text()
    found = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)

    assert found is not None
    assert {int(number) for number in found[1].split()} == {int(code) for code in set(ExitCode) - HEALABLE}


def test_the_example_settings_are_accepted(tmp_path: Path) -> None:
    """Every key of edge-client.toml exists and has the right type, those behind a # included."""
    text = (DEPLOY / "edge-client.toml").read_text()
    uncommented = tmp_path / "edge-client.toml"
    uncommented.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))

    settings = read_config(uncommented)

    assert normalise_server(settings["server"]) == settings["server"]
    assert {"memory", "round_time", "round_traffic"} <= settings.keys()
    limits = parse_limits(settings["round_time"], settings["round_traffic"])
    assert (limits.round_s, limits.round_bytes) == (1200, 10_000_000)


@pytest.mark.parametrize("unit", UNITS[:1])
def test_the_unit_uses_flags_that_exist(unit: str) -> None:
    """No flag in ExecStart was renamed since."""
    text = (DEPLOY / unit).read_text()
    line = re.search(r"^ExecStart=\S+ (\w+) (.*)$", text, re.MULTILINE)
    assert line is not None

    command = group.get_command(click.Context(group), line[1])

    assert command is not None
    known = {name for parameter in command.params for name in parameter.opts}
    assert set(re.findall(r"--[\w-]+", line[2])) <= known


@pytest.mark.parametrize(("program", "codes"), [("edge-client", ExitCode), ("aggregator", ServerExitCode)])
def test_the_runbook_explains_every_exit_status(program: str, codes: type[IntEnum]) -> None:
    """Each program has its table, with one row per status: the one place where they are listed."""
    text = (DEPLOY / "RUNBOOK.md").read_text()
    table = re.search(rf"^`{program}`.*:\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None

    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", table[1], re.MULTILINE)]

    assert sorted(rows) == sorted(int(code) for code in codes)
