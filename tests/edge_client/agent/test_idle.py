"""What a client that has nothing to do costs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = {"torch", "transformers", "numpy", "tokenizers", "safetensors", "huggingface_hub"}
MAX_IDLE_RSS_BYTES = 45 << 20
"""DESIGN.md's promise for a waiting client."""

TELL_MODULES = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("MODULES", *sys.modules, flush=True))
from edge_client.cli.main import main
main()
"""


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.rpartition("MODULES")[2].split()}


def test_importing_the_command_loads_nothing_heavy() -> None:
    """`import edge_client.cli.main` loads neither torch, transformers, numpy nor aiohttp."""
    loaded = modules_after("import edge_client.cli.main")

    assert not loaded & (HEAVY | {"aiohttp"})


@pytest.mark.parametrize("command", ["", "join", "data", "plan", "status", "leave", "generate", "evaluate", "doctor"])
def test_help_loads_nothing_heavy(command: str) -> None:
    """Neither does any --help."""
    loaded = modules_after(f"import edge_client.cli.main as c; c.main([*{command.split()!r}, '--help'])")

    assert not loaded & (HEAVY | {"aiohttp"})


@pytest.mark.slow
async def test_a_client_that_waits_for_work_is_small(server: Any, tmp_path: Path, base_folder: Path) -> None:
    """While it waits, neither torch nor numpy is loaded and 45 MiB are not exceeded; SIGTERM ends it with status 0."""
    server.idle_until = asyncio.Event()
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"source": "text {i}", "target": "title {i}"}}\n' for i in range(40)))
    arguments = ["--server", server.url, "--token", "token-for-tests", "--data", str(data), "--model", str(base_folder)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TELL_MODULES, "join", *arguments, "--state", str(tmp_path / "state"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    try:
        while not any(line.startswith("GET /v1/work") for line in server.requests):
            assert process.returncode is None
            await asyncio.sleep(0.05)
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        while not (line := await process.stdout.readline()).startswith(b"MODULES"):
            assert line
        process.terminate()
        await asyncio.wait_for(process.communicate(), 30)
    finally:
        server.idle_until.set()
        if process.returncode is None:
            process.kill()
            await process.wait()

    rss_bytes = next(int(row.split()[1]) << 10 for row in status.splitlines() if row.startswith("VmRSS"))
    loaded = set(line.decode().split())
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not any(name.startswith("edge_client.data.") for name in loaded), "text is read in a child, once"
    assert rss_bytes <= MAX_IDLE_RSS_BYTES
    assert process.returncode == 0
