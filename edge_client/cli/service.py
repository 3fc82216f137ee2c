"""`edge-client doctor --service`: what the service may reach, found out from inside its unit.

A unit that protects the system also keeps its program from things: the GPU's device nodes, the board's text, the
server. None of this shows from a shell. So deploy/edge-client-doctor.service runs this in the client's own sandbox.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from edge_client.agent.settings import normalise_server, read_config
from edge_client.errors import ClientError, ConfigError
from edge_client.host.torch_build.facts import read_facts

GPU_NODES = ("nvmap", "nvhost-*gpu*", "nvhost-ctrl", "nvgpu/igpu0/*", "dri/renderD*", "nvidia*", "host1x-fence")
"""Device nodes that CUDA opens on a Jetson, below /dev."""

ROOTS_OWN = ("nvhost-sched-gpu", "sched", "power", "nvidia-caps", "nvidia-modeset")
"""Nodes that no program needs for computing, and that JetPack leaves to root or a debugger."""

CONNECT_S = 5.0
"""A server on the same network answers in milliseconds."""

MAX_FILES = 10_000
"""Files of the board's text whose rights are looked at; more than that would only repeat the same answer."""

JETSON_DROP_IN = "copy deploy/edge-client.service.d/jetson.conf to /etc/systemd/system/edge-client.service.d/"


class Reach(msgspec.Struct, frozen=True):
    """One thing that a service needs.

    Attributes:
        what: its name.
        found: what is so.
        problem, hint: why it cannot be used, "" where it can.
    """

    what: str
    found: str
    problem: str = ""
    hint: str = ""


def examine_service(
    state: Path, config: Path, root: Path = Path("/"), env: Mapping[str, str] | None = None
) -> list[Reach]:
    """Look at all that the client's service needs, as whoever runs this. Changes nothing."""
    env = os.environ if env is None else env
    found = [_unit(root, env), _state(state)]
    try:
        settings = read_config(config)
    except ConfigError as error:
        return [*found, Reach("settings", str(config), error.message, error.hint), *_gpu(root)]
    found.append(Reach("settings", f"{config} is readable"))
    return [*found, _data(str(settings.get("data", ""))), *_gpu(root), *_server(settings, env)]


def first_problem(found: Sequence[Reach]) -> ConfigError | None:
    """The error to end with, None where everything can be reached."""
    reach = next((reach for reach in found if reach.problem), None)
    return None if reach is None else ConfigError(f"{reach.what}: {reach.problem}", reach.hint)


def service_lines(found: Sequence[Reach]) -> list[str]:
    """The findings for people."""
    return [f"{reach.what:<12}{reach.problem or reach.found}" for reach in found]


def _unit(root: Path, env: Mapping[str, str]) -> Reach:
    group = (root / "proc/self/cgroup").read_text().strip().splitlines() if (root / "proc/self/cgroup").exists() else []
    unit = next((line.rpartition("/")[2] for line in group if line.endswith(".service")), "")
    user = f"user {os.getuid()}, groups {' '.join(map(str, sorted(os.getgroups())))}"
    if unit and "INVOCATION_ID" in env:
        return Reach("service", f"inside {unit}, {user}")
    hint = "systemctl start edge-client-doctor; journalctl -u edge-client-doctor says what the service itself may reach"
    return Reach("service", f"not inside a unit ({user}): {hint}")


def _state(state: Path) -> Reach:
    try:
        with tempfile.NamedTemporaryFile(dir=state):
            return Reach("state", f"{state} can be written")
    except OSError as error:
        hint = "StateDirectory= makes it; a folder that was copied needs its owner: rm -r it, or chown"
        return Reach("state", str(state), f"{state} cannot be written: {error.strerror}", hint)


def _data(data: str) -> Reach:
    if not data or data.startswith("builtin:"):
        return Reach("data", data or "builtin:docstrings")
    path, n_files = Path(data), 0
    for file in _files(path):
        n_files += 1
        if not os.access(file, os.R_OK):
            reason = "may not be read" if os.path.lexists(file) else "cannot be seen: it, or a folder above, is closed"
            hint = f"chmod -R a+rX {path}, and its folders up to /; the unit's user sees no home folders (ProtectHome=)"
            return Reach("data", data, f"{file} {reason}", hint)
    return Reach("data", f"{n_files} file{'s' * (n_files != 1)} of {data} can be read")


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    n_files = 0
    for folder, _, names in os.walk(path):
        yield Path(folder)
        for name in names:
            yield Path(folder) / name
            n_files += 1
            if n_files == MAX_FILES:
                return


def _gpu(root: Path) -> list[Reach]:
    """Device nodes of NVIDIA's, where the board is a Jetson or has some."""
    nodes = sorted({node for pattern in GPU_NODES for node in (root / "dev").glob(pattern)})
    nodes = [node for node in nodes if node.name not in ROOTS_OWN and not node.is_dir()]
    if not nodes:
        if not read_facts(root).jetson_linux:
            return []
        return [Reach("GPU", "", "this is a Jetson, and none of its GPU's device nodes can be seen", JETSON_DROP_IN)]
    closed = [(node, reason) for node in nodes if (reason := _why_closed(node))]
    if closed:
        return [Reach("GPU", "", f"{closed[0][0]} {closed[0][1]}", JETSON_DROP_IN)]
    return [Reach("GPU", f"{len(nodes)} device nodes can be opened")]


def _why_closed(node: Path) -> str:
    try:
        os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EPERM:
            return "is not among the unit's DeviceAllow="
        if error.errno == errno.EACCES:
            return f"belongs to group {node.stat().st_gid}, which is not among the unit's SupplementaryGroups="
    return ""  # open, or busy: the unit does not keep it away


def _server(settings: Mapping[str, Any], env: Mapping[str, str]) -> list[Reach]:
    """Whether the server's port takes connections; not asked through a proxy, which `join` itself tells about."""
    try:
        parts = urlsplit(normalise_server(str(settings.get("server", ""))))
    except ClientError as error:
        return [Reach("server", "", error.message, error.hint)]
    if any(env.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")):
        return [Reach("server", f"{parts.netloc}, through a proxy")]
    address = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection(address, timeout=CONNECT_S).close()
    except OSError as error:
        hint = "check the address, the firewall, and the unit's RestrictAddressFamilies= and IPAddressDeny="
        return [Reach("server", "", f"{parts.netloc} cannot be reached: {error.strerror or error}", hint)]
    return [Reach("server", f"{parts.netloc} takes connections")]
