"""What sets many boards up at once: the loop's script, and a playbook that gives the installer flags that it has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_fleets_script_is_sound() -> None:
    """shellcheck has nothing to say, and it says how it is called."""
    script = ROOT / "deploy/fleet/one-board.sh"
    shellcheck = Path(sys.executable).with_name("shellcheck")

    assert subprocess.run([shellcheck, script], capture_output=True, text=True).stdout == ""
    assert "usage: " in subprocess.run([script], capture_output=True, text=True).stderr


def test_both_ways_know_the_installers_flags() -> None:
    """What they give `edge-client-setup`, which is the installer in the package."""
    (play,) = yaml.safe_load((ROOT / "deploy/fleet/playbook.yaml").read_text())
    texts = [(ROOT / "deploy/fleet/one-board.sh").read_text(), str(play["tasks"][-1])]
    usage = subprocess.run([ROOT / "deploy/install-board.sh", "--help"], capture_output=True, text=True).stdout

    for text in texts:
        flags = set(re.findall(r"(?<=[\s'+])--(?:server|token|data|fingerprint)[\w-]*", text))
        assert flags == {"--server", "--token-file", "--fingerprint", "--data"}
        assert all(re.search(rf"^  {flag} ", usage, re.MULTILINE) for flag in flags)
