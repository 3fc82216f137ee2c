"""A server as a process of its own, under the limits of a service."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.processes.cost import Cost, cost_of
from benchmarks.processes.timed_server import longest_s
from benchmarks.processes.unit import Limits

START_S = 60.0
"""A server of a base that nobody has checked yet reads all of it first."""

STOP_S = 90.0
"""The shipped unit's TimeoutStopSec."""


class ServerProcess:
    """One `aggregator serve` on the loopback address, without TLS unless it is asked for. Use as `with`.

    `is_timed`: note the long turns of its event loop (`longest_turn_s`).
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        limits: Limits,
        *,
        model: str = "builtin",
        tls: bool = False,
        is_timed: bool = False,
    ) -> None:
        self.folder, self._settings, self._limits = folder, settings, limits
        self._model, self._tls = model, "self-signed" if tls else "off"
        self._is_timed = is_timed
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port = "127.0.0.1", 0
        self.url, self.fingerprint = "", ""

    def __enter__(self) -> ServerProcess:
        pairs = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        _run("init", str(self.folder), "--model", self._model, *pairs)
        self.start()
        return self

    def start(self) -> None:
        """Start the server on the port that it had, if it had one; returns when it listens."""
        self._address.unlink(missing_ok=True)  # a server that was killed has left it
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._serving("--port", str(self.port), "--tls", self._tls),
                stdout=log,
                stderr=log,
                env=self._limits.full_environment(),
                preexec_fn=self._limits.take,
            )
        facts = self._published()
        self.url, self.fingerprint = facts["url"], facts["fingerprint"]
        self.port = int(self.url.rpartition(":")[2])

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in an orderly way. Safe to call again."""
        assert self._process is not None
        if self.is_up:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def forget_peak(self) -> None:
        """Let the most memory that it ever had begin anew with what it has now."""
        assert self._process is not None
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    @property
    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log_bytes(self) -> int:
        return self._log.stat().st_size

    def longest_turn_s(self, began_s: float, ended_s: float) -> float:
        """The most processor time that its event loop took in one turn, of those between two monotonic times. Once it
        has stopped, and where it is timed."""
        return longest_s(self._turns, began_s, ended_s)

    def token(self, uses: int) -> str:
        """A new join token for so many boards."""
        made = _run("token", "create", str(self.folder), "--uses", str(uses), "--json")
        return str(json.loads(made)["token"])

    def cost(self) -> Cost:
        """The process as it is now."""
        assert self._process is not None
        return cost_of(self._process.pid)

    @property
    def _log(self) -> Path:
        return self.folder / "serve.log"

    @property
    def _turns(self) -> Path:
        return self.folder / "turns.json"

    def _serving(self, *flags: str) -> list[str]:
        """The command line of the server."""
        command = _command("serve", str(self.folder), *flags)
        if not self._is_timed:
            return command
        return [sys.executable, "-m", "benchmarks.processes.timed_server", str(self._turns), *command[3:]]

    @property
    def _address(self) -> Path:
        return self.folder / "server.json"

    def _published(self) -> dict[str, str]:
        """The server's address and certificate, once it listens. Raises RuntimeError where it ends before."""
        for _ in range(int(START_S / 0.05)):
            if self._address.exists():
                return dict(json.loads(self._address.read_text()))
            if not self.is_up:
                break
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the server did not start: {self._log.read_text().strip()}")


def _run(*arguments: str) -> str:
    """The output of a command of the server's."""
    return subprocess.run(_command(*arguments), check=True, stdout=subprocess.PIPE, text=True).stdout


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aggregator.cli", *arguments]
