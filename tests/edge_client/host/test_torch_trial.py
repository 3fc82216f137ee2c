"""torch tried on a board: what works, and which import or product dies, by true processes with a package that does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import ExitCode
from edge_client.host.torch_trial import ONE_THREAD, Product, advice
from tests.edge_client.host.dying_torch import dies_of, write_torch

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def edge_client(torch: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the client on a board with this torch and four processors' worth of threads."""
    code = (
        "import sys; from edge_client.host import torch_trial; torch_trial.usable_processors = lambda: 4; "
        "from edge_client.cli.main import main; main(sys.argv[1:])"
    )
    env = {**os.environ, "PYTHONPATH": f"{torch}:{ROOT}"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], capture_output=True, text=True, env=env, timeout=60
    )


def works(facts: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["dtype"], one["threads"]) for one in facts["torch"]["products"] if not one["exit_code"]]


def test_doctor_fails_where_torch_dies_at_its_import(tmp_path: Path) -> None:
    """Once, by name, with the remedy and the documented status; the arithmetic is not called busy."""
    torch = write_torch(tmp_path, version="2.10.0", at_import=dies_of("SIGILL"))

    done = edge_client(torch, "doctor", "--state", str(tmp_path))

    assert done.returncode == ExitCode.TORCH, done.stderr
    assert "error: importing torch died of SIGILL" in done.stderr
    assert "pip install" in done.stderr
    assert "busy" not in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("when", "alive"),
    [
        ("threads > 1", [("fp32", 1), ("bf16", 1)]),
        ("threads == 1", [("fp32", 4), ("bf16", 4)]),
        ("False", [("fp32", 1), ("bf16", 1), ("fp32", 4), ("bf16", 4)]),
    ],
)
def test_doctor_tries_every_product(when: str, alive: list[tuple[str, int]], tmp_path: Path) -> None:
    """Each in a child: those that die are told apart from those that work, and one thread is the last resort."""
    torch = write_torch(tmp_path, version="2.12.0", at_product=dies_of("SIGILL", when))

    done = edge_client(torch, "doctor", "--state", str(tmp_path), "--json")

    assert works(json.loads(done.stdout.splitlines()[0])) == alive
    assert (done.returncode == ExitCode.TORCH) == (len(alive) < 4)
    assert (ONE_THREAD in done.stderr) == (when == "threads > 1")
    assert ("died of SIGILL" in done.stderr) == (len(alive) < 4)


def test_join_says_it_once_and_is_not_started_again(tmp_path: Path) -> None:
    """Before the first request: the status is one that the unit does not restart after."""
    torch = write_torch(tmp_path / "torch", version="2.10.0", at_import=dies_of("SIGILL"))
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"source": "text {i}", "target": "{i}"}}\n' for i in range(20)))
    join = ("join", "--server", "http://127.0.0.1:9", "--token", "t", "--data", str(data))

    done = edge_client(torch, *join, "--state", str(tmp_path / "state"))

    assert done.returncode == ExitCode.TORCH, done.stderr
    assert done.stderr.count("died of SIGILL") == 1


def test_a_torch_that_lacks_a_library_is_told_with_its_name(tmp_path: Path) -> None:
    """As on a Jetson without cuSPARSELt."""
    torch = write_torch(
        tmp_path, version="2.5.0a0", at_import='raise ImportError("libcusparseLt.so.0: cannot open shared object file")'
    )

    done = edge_client(torch, "doctor", "--state", str(tmp_path))

    assert done.returncode == ExitCode.TORCH
    assert "torch 2.5.0a0 is installed but cannot be loaded: libcusparseLt.so.0" in done.stderr


def test_the_real_torch_works_here(tmp_path: Path) -> None:
    """Every product of the torch that the tests run with."""
    done = edge_client(tmp_path, "doctor", "--state", str(tmp_path), "--json")

    assert done.returncode == 0, done.stderr
    assert len(works(json.loads(done.stdout))) == 4


def test_one_thread_is_advised_where_it_helps() -> None:
    """Not where it fails as well, nor where a GPU alone fails."""
    bad = {"message": "died", "hint": "install another", "exit_code": 12}
    single = Product(device="cpu", dtype="fp32", threads=1)
    many = Product(device="cpu", dtype="fp32", threads=4, **bad)
    gpu = Product(device="cuda", dtype="fp32", threads=1, **bad)

    assert advice([single]) == ""
    assert ONE_THREAD in advice([single, many])
    assert advice([Product(device="cpu", dtype="fp32", threads=1, **bad), many]) == "install another"
    assert advice([gpu, single]) == "install another"
