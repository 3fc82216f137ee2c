"""The memory that is a program's own, by its mappings: natively as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
from arm64.held_memory import own_bytes, require_counting
from edge_client.host.worker_memory import resident_bytes

require_counting()
print(own_bytes(), resident_bytes())
"""


def test_without_an_emulator_all_memory_is_the_programs_own() -> None:
    """What is taken is counted, and the sum is the kernel's to within 2 %: its own is a little late."""
    root = Path(__file__).parents[2]

    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, cwd=root)

    own, resident = map(int, done.stdout.split())
    assert 0.98 < own / resident < 1.02
