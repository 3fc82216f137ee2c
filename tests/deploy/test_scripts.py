"""Shell scripts that boards and servers run, most of them as root: clean, and no shell is given a network's words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ["deploy/install-board.sh", "deploy/fleet/one-board.sh", "scripts/setup.sh", "scripts/deb/check.sh"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_clean(script: str) -> None:
    """By shellcheck; and nothing that comes from a network is given to a shell."""
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), ROOT / script], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout
    text = (ROOT / script).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert not re.search(r"\b(curl|wget)\b|\|\s*(ba)?sh\b", text)
