"""What sets many boards up at once: the loop's script, and a playbook that gives the installer flags that it has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_loops_script_says_how_it_is_called() -> None:
    """Without its three arguments."""
    done = subprocess.run([ROOT / "deploy/fleet/one-board.sh"], capture_output=True, text=True)

    assert (done.returncode, done.stderr[:7]) == (2, "usage: ")


def test_both_ways_know_the_installers_flags() -> None:
    """What they give `edge-client-setup`, which is the installer in the package."""
    (play,) = yaml.safe_load((ROOT / "deploy/fleet/playbook.yaml").read_text())
    texts = [(ROOT / "deploy/fleet/one-board.sh").read_text(), str(play["tasks"][-1])]
    usage = subprocess.run([ROOT / "deploy/install-board.sh", "--help"], capture_output=True, text=True).stdout

    for text in texts:
        flags = set(re.findall(r"(?<=[\s'+])--(?:server|token|data|fingerprint)[\w-]*", text))
        assert flags == {"--server", "--token-file", "--fingerprint", "--data"}
        assert all(re.search(rf"^  {flag} ", usage, re.MULTILINE) for flag in flags)
