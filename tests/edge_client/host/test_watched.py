"""Commands that compute in a child process, beside a torch that kills it, and under signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.errors import ExitCode
from tests.edge_client.host.dying_torch import dies_of, write_torch

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def watched(code: str, ask_again_s: float = 5.0) -> subprocess.Popen[str]:
    """A process that watches a command with this code, and has `say` to write at once."""
    lines = (
        "import os, signal, sys, time",
        "from edge_client.host import watched",
        f"watched.ASK_AGAIN_S = {ask_again_s}",
        "from edge_client.host.watched import run_watched",
        "say = lambda word: print(word, flush=True)",
        "def command():",
        *(f"    {line}" for line in code.splitlines()),
        "sys.exit(run_watched(command, who='the command'))",
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize("command", ["generate", "evaluate", "bench", "reward"])
@pytest.mark.parametrize(
    ("at_import", "words"),
    [
        (dies_of("SIGILL"), "died of SIGILL: torch 2.10.0 uses an instruction that this processor"),
        (
            'raise ImportError("libcudart.so.13 is missing")',
            "torch 2.10.0 is installed but cannot be loaded: libcudart",
        ),
    ],
)
def test_every_command_that_computes_names_a_torch_for_another_processor(
    command: str, at_import: str, words: str, tmp_path: Path
) -> None:
    """Once, with the remedy and the documented status, as `doctor` does."""
    torch = write_torch(tmp_path / "torch", version="2.10.0", at_import=at_import)
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f'{{"source": "text {i}", "target": "{i}"}}\n' for i in range(20)))
    arguments = {
        "generate": ["a text"],
        "evaluate": ["--data", str(data)],
        "bench": ["--steps", "1"],
        "reward": ["fit", str(data)],
    }[command]
    env = {**os.environ, "PYTHONPATH": f"{torch}:{ROOT}", "HOME": str(tmp_path)}
    code = "from edge_client.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, command, *arguments], capture_output=True, text=True, env=env, timeout=60
    )

    assert done.returncode == ExitCode.TORCH, done.stderr
    assert done.stderr.count(words) == 1
    assert "→ install the build that serves" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_status_and_the_words_are_the_commands_own() -> None:
    """Nothing is written twice, though there are two processes."""
    process = watched("print('once')\nreturn 7")

    assert process.communicate()[0] == "once\n"
    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_end_is_passed_on(number: signal.Signals) -> None:
    """The command ends in its own way."""
    process = watched(
        f"signal.signal({int(number)}, lambda *_: (say('heard'), sys.exit(5)))\nsay('ready')\ntime.sleep(60)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(number)

    assert process.communicate()[0] == "heard\n"
    assert process.returncode == 5


def test_a_request_that_is_lost_is_made_again() -> None:
    """As one that comes while Python destroys something, which prints it and goes on. The command loses the first one
    and ends at the next, whenever that comes: on a busy machine it may come while the first is still being lost."""
    process = watched(
        "requests = []\n"
        "def lose_the_first(*_):\n    requests.append(1)\n    if len(requests) > 1:\n        os._exit(5)\n"
        "signal.signal(signal.SIGINT, lose_the_first)\nsay('ready')\nwhile True:\n    time.sleep(60)",
        ask_again_s=0.1,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 5
    process.stdout.close()


def test_a_command_that_dies_of_the_request_leaves_no_other_status() -> None:
    """As without a child."""
    process = watched("say('ready')\ntime.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()

    process.terminate()

    assert process.wait() == -signal.SIGTERM
    process.stdout.close()


def test_no_command_outlives_the_process_that_was_started() -> None:
    """Its terminal or its service would believe that it has ended."""
    process = watched("say(os.getpid())\ntime.sleep(60)")
    assert process.stdout is not None
    process.stdout.readline()

    process.kill()

    # The child holds the pipe's other end: that it is closed says that the child is gone.
    assert process.stdout.read() == ""
    process.wait()
    process.stdout.close()
