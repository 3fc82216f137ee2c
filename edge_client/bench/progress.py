"""How far a measurement is, on stderr: one live line on a terminal, a plain line per phase elsewhere."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO


class ProgressLine:
    """`tell` is called often; what it writes is little."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._phase = ""

    def tell(self, phase: str, step: int, steps: int) -> None:
        """`step` of `steps` steps of a phase are done."""
        text = f"bench: {phase}" + (f" {step}/{steps}" if steps > 1 else "")
        if self._live:
            self._write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")
        elif phase != self._phase or (step == steps and steps > 1):
            self._write(text + "\n")
        self._phase = phase

    def close(self) -> None:
        """Remove the live line."""
        if self._live:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
