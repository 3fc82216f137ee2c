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
from edge_client.agent.manners.leave_to_train import Rules, Window
from edge_client.agent.manners.rules import parse_rules
from edge_client.agent.settings import normalise_server, read_config
from edge_client.cli.main import group
from edge_client.errors import ExitCode
from edge_client.host.priority import NICE

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("edge-client.service", "edge-client-doctor.service", "aggregator.service")
DROP_INS = {"edge-client.service": ("jetson",), "edge-client-doctor.service": ("jetson",), "aggregator.service": ()}
"""Drop-ins of each unit, by the names of their files; those of the client are for its doctor as well."""

VARIANTS = [(unit, drop_ins) for unit in UNITS for drop_ins in {(), DROP_INS[unit]}]
HEALABLE = {ExitCode.OK, ExitCode.INTERNAL, ExitCode.UNREACHABLE, ExitCode.DISK, ExitCode.LOCKED}
"""Statuses that another start may mend."""

OLDEST_SYSTEMD = 249
"""Of the systems that boards and servers have: JetPack 6 and Ubuntu 22.04 (249), Debian 12 (252), Ubuntu 24.04 and
JetPack 7 (255), Debian 13 (257)."""

SINCE = {
    # [Unit], [Install]: as old as units
    **dict.fromkeys(("Description", "After", "Wants", "WantedBy"), 1),
    "StartLimitIntervalSec": 230,
    # [Service]: systemd.service(5)
    **dict.fromkeys(("Type", "ExecStart", "Restart", "RestartSec", "TimeoutStopSec"), 1),
    "RestartPreventExitStatus": 189,
    "OOMPolicy": 243,
    # systemd.exec(5)
    **dict.fromkeys(("EnvironmentFile", "Environment", "User", "Group", "Nice", "UMask", "SupplementaryGroups"), 1),
    "IOSchedulingClass": 1,
    **dict.fromkeys(("LimitNOFILE", "PrivateTmp", "CapabilityBoundingSet"), 1),
    **dict.fromkeys(("NoNewPrivileges", "SystemCallFilter"), 187),
    **dict.fromkeys(("PrivateDevices", "SystemCallArchitectures"), 209),
    **dict.fromkeys(("RestrictAddressFamilies", "RuntimeDirectory"), 211),
    **dict.fromkeys(("ProtectSystem", "ProtectHome"), 214),
    **dict.fromkeys(("RestrictRealtime", "MemoryDenyWriteExecute"), 231),
    **dict.fromkeys(("DynamicUser", "ProtectControlGroups", "ProtectKernelTunables", "ProtectKernelModules"), 232),
    "RestrictNamespaces": 233,
    **dict.fromkeys(("StateDirectory", "StateDirectoryMode", "RuntimeDirectoryPreserve", "LockPersonality"), 235),
    **dict.fromkeys(("ProtectHostname", "RestrictSUIDSGID"), 242),
    "ProtectKernelLogs": 244,
    "ProtectClock": 245,
    # systemd.kill(5), systemd.resource-control(5)
    "KillMode": 1,
    **dict.fromkeys(("DevicePolicy", "DeviceAllow"), 208),
}
"""The version of systemd that each setting of our units came with, as its NEWS and its manual say ("Added in version");
1 for those of the first years."""

VALUES_SINCE = {("Type", "exec"): 240, ("ProtectSystem", "strict"): 232, ("SystemCallFilter", "@system-service"): 239}
"""Values that are newer than their setting."""

MOST_EXPOSED = 2.5
"""Of `systemd-analyze security`, where 0 is closed and 10 open."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def installed(unit: str, drop_ins: tuple[str, ...], root: Path) -> Path:
    """A root folder with the unit as it lies in deploy/, its drop-ins, and an executable where its program is."""
    text = (DEPLOY / unit).read_text()
    for program in re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE):
        stand_in = root / program.lstrip("/")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.write_text("#!/bin/sh\n")
        stand_in.chmod(0o755)
    folder = root / "etc/systemd/system"
    (folder / f"{unit}.d").mkdir(parents=True)
    (folder / unit).write_text(text)
    for target in ("sysinit", "basic", "shutdown", "network-online", "time-sync", "multi-user"):
        (folder / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    for name in drop_ins:
        shutil.copy(DEPLOY / "edge-client.service.d" / f"{name}.conf", folder / f"{unit}.d")
    return root


def complaints(root: Path, unit: str) -> list[str]:
    """What this machine's systemd has against a unit."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"--root={root}", unit], capture_output=True, text=True
    )
    return [line for line in done.stderr.splitlines() if unit.removesuffix(".service") in line]


def settings(path: Path) -> list[tuple[str, str]]:
    """The settings of a unit, in order."""
    lines = [line for line in path.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


@needs_systemd
@pytest.mark.parametrize(("unit", "drop_ins"), VARIANTS)
def test_systemd_accepts_the_unit_as_it_is(unit: str, drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    """`systemd-analyze verify` of this machine finds nothing to complain about; no line is left out."""
    root = installed(unit, drop_ins, tmp_path)

    assert complaints(root, unit) == []

    with (root / "etc/systemd/system" / unit).open("a") as file:
        file.write("[Service]\nNoSuchSetting=yes\n")
    assert ["NoSuchSetting" in line for line in complaints(root, unit)] == [True], "nothing is complained about here"


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.service")) + sorted(DEPLOY.rglob("*.conf")))
def test_the_oldest_systemd_knows_every_setting(path: Path) -> None:
    """An older one ignores what it does not know with a warning, as it did with the pauses between restarts."""
    found = settings(path)

    assert found
    assert {name for name, _ in found if SINCE[name] > OLDEST_SYSTEMD} == set()
    values = {(name, word) for name, value in found for word in value.split()}
    assert all(VALUES_SINCE[value] <= OLDEST_SYSTEMD for value in values & VALUES_SINCE.keys())
    assert not {"RestartSteps", "RestartMaxDelaySec"} & {name for name, _ in found}, "they came with 254"


@needs_systemd
@pytest.mark.parametrize(("unit", "drop_ins"), VARIANTS)
def test_the_unit_is_not_more_open_than_it_has_to_be(unit: str, drop_ins: tuple[str, ...], tmp_path: Path) -> None:
    """With a Jetson's drop-in too, which lets NVIDIA's nodes in."""
    root = installed(unit, drop_ins, tmp_path)

    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--root={root}", "--no-pager", unit],
        capture_output=True,
        text=True,
    )

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= MOST_EXPOSED
    assert ("nvmap" in done.stdout) == bool(drop_ins)


def test_the_doctor_looks_from_the_clients_own_sandbox() -> None:
    """Its unit has every setting of the client's, but for how it starts, ends and counts."""
    own = ("Type", "ExecStart", "Restart", "TimeoutStop", "KillMode", "OOMPolicy", "RuntimeDirectory")
    own += ("Description", "After", "Wants", "WantedBy", "StartLimit")
    client, doctor = (
        [one for one in settings(DEPLOY / unit) if not one[0].startswith(own)]
        for unit in ("edge-client.service", "edge-client-doctor.service")
    )

    assert doctor == client
    assert ("User", "edge-client") in client, "with DynamicUser= one user for both, so that the state keeps its owner"


def test_a_jetson_gets_the_nodes_of_its_gpu_and_no_others() -> None:
    """Which are closed to anything else: no class of devices, and no node that is not NVIDIA's."""
    found = settings(DEPLOY / "edge-client.service.d/jetson.conf")
    nodes = [value.split() for name, value in found if name == "DeviceAllow"]

    assert ("DevicePolicy", "closed") in found
    assert all(re.match(r"/dev/(nv|host1x-fence|dri/renderD)", node) and mode == "rw" for node, mode in nodes)
    assert {"/dev/nvmap", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu/igpu0/ctrl", "/dev/nvidiactl"} <= {n for n, _ in nodes}
    assert ("SupplementaryGroups", "video render") in found


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
    uncommented.write_text(re.sub(r"^#(\w+ = |\[\[)", r"\1", text, flags=re.MULTILINE))

    settings = read_config(uncommented)

    assert normalise_server(settings["server"]) == settings["server"]
    assert {"memory", "round_time", "round_traffic"} <= settings.keys()
    limits = parse_limits(settings["round_time"], settings["round_traffic"])
    assert (limits.round_s, limits.round_bytes) == (1200, 10_000_000)
    rules = parse_rules(settings["window"], settings["below"], settings["only_on_mains"])
    assert rules == Rules(windows=(Window(22 * 3600, 6 * 3600),), below_c=70.0, only_on_mains=True)
    assert [reward.title for reward in settings["rewards"]] == ["tool_call", "length"]


def test_the_units_priority_is_that_of_a_join_by_hand() -> None:
    """The same niceness as the worker of `edge-client join` has by default, and the idle class for the disk."""
    found = settings(DEPLOY / "edge-client.service")

    assert ("Nice", str(NICE)) in found and ("IOSchedulingClass", "idle") in found


@pytest.mark.parametrize("unit", UNITS[:2])
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
