"""Commands of the machine, and what is told while they run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from braid_common.errors import CommandError
from braid_common.units import show_seconds

TAIL_LINES = 15
"""Of what a command wrote before it failed, shown."""

EVERY_S = 60.0
"""A command that runs for long is told again, with its log's last line."""

_BEGAN_S = time.monotonic()


class NotPossibleError(CommandError):
    """Something that the proof needs is not here, or failed; the hint says what to do."""


def say(text: str) -> None:
    """A line with the time since the beginning."""
    print(f"[{show_seconds(round(time.monotonic() - _BEGAN_S)):>9}] {text}", file=sys.stderr, flush=True)


def run(words: Sequence[str], *, why: str = "", log: Path | None = None) -> str:
    """Run a command to its end; what it wrote to standard output. Raises NotPossibleError where it fails.

    Args:
        words: program and arguments.
        why: what to do next where it fails.
        log: the file that gets all output instead, for a command that runs for long: it is told from time to time.
    """
    if log is None:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        status, text, said = done.returncode, done.stdout, done.stdout + done.stderr
    else:
        status, text = _logged(words, log), ""
        said = log.read_text(errors="replace")
    if status != 0:
        tail = "\n".join(said.strip().splitlines()[-TAIL_LINES:])
        message = f"{' '.join(words)} ended with status {status}:\n{tail}"
        raise NotPossibleError(message, why or "mend what it says, and go on")
    return text


def _logged(words: Sequence[str], log: Path) -> int:
    """The command's exit status; while it runs, its log's last line is told."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    return process.wait(EVERY_S)
                except subprocess.TimeoutExpired:
                    lines = log.read_text(errors="replace").split("\n")
                    say(f"  … {next((line for line in reversed(lines) if line.strip()), '')[:100]}")
        finally:
            process.kill()
            process.wait()
