"""A server as a process of its own, under the limits of a service, and what it costs."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from braid_common.units import MIB

DESCRIPTORS = 1024
"""systemd's default soft limit, under which a service starts that says nothing else."""

START_S = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a server: its memory now and at most, its processor time, and the bytes of its log."""

    resident_bytes: int
    peak_bytes: int
    cpu_s: float
    log_bytes: int

    @property
    def resident_mib(self) -> float:
        return self.resident_bytes / MIB

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / MIB


class ServerProcess:
    """One `aggregator serve` on the loopback address. Use as `with`."""

    def __init__(self, folder: Path, settings: Mapping[str, str], model: str = "builtin") -> None:
        self._folder, self._settings, self._model = folder, settings, model
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port = "127.0.0.1", 0

    def __enter__(self) -> ServerProcess:
        pairs = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        subprocess.run(_command("init", str(self._folder), "--model", self._model, *pairs), check=True, stdout=-3)
        limit = partial(_limit_descriptors, DESCRIPTORS)
        with (self._folder / "serve.log").open("wb") as log:
            self._process = subprocess.Popen(
                _command("serve", str(self._folder), "--port", "0", "--tls", "off"),
                stdout=log,
                stderr=log,
                preexec_fn=limit,
            )
        address = self._folder / "server.json"
        for _ in range(int(START_S / 0.05)):
            if address.exists():
                break
            time.sleep(0.05)
        self.port = int(json.loads(address.read_text())["url"].rpartition(":")[2])
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(START_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def token(self) -> str:
        """A join token."""
        return (self._folder / "join.token").read_text().strip()

    def cost(self) -> Cost:
        """The process as it is now; zeros where it has ended."""
        assert self._process is not None
        log_bytes = (self._folder / "serve.log").stat().st_size
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            ticks = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:
            return Cost(0, 0, 0.0, log_bytes)
        sizes = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
        cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        return Cost(sizes.get("VmRSS", 0), sizes.get("VmHWM", 0), cpu_s, log_bytes)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aggregator.cli", *arguments]


def _limit_descriptors(soft: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
