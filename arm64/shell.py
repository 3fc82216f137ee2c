"""Commands of the machine, and what is told while they run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
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


def run(
    words: Sequence[str],
    *,
    why: str = "",
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    status: int = 0,
) -> str:
    """Run a command to its end; what it wrote. Raises NotPossibleError where it ends with another status.

    Args:
        words: program and arguments.
        why: what to do next where it fails.
        log: the file that gets its output, instead of the answer; told from time to time.
        env: variables instead of this process's own.
        status: that it must end with.
    """
    if log is None:
        done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
        code, text = done.returncode, done.stdout
        said = done.stdout + done.stderr
    else:
        code, text = _logged(words, log, env), ""
        said = log.read_text(errors="replace")
    if code != status:
        tail = "\n".join(said.strip().splitlines()[-TAIL_LINES:])
        raise NotPossibleError(
            f"{' '.join(words)} ended with status {code}:\n{tail}", why or "mend what it says, and go on"
        )
    return text


def _logged(words: Sequence[str], log: Path, env: Mapping[str, str] | None) -> int:
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=env)
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
