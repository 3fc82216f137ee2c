"""What sets many boards up at once: the loop's script, and a playbook that gives the installer flags that it has."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_loops_script_says_how_it_is_called() -> None:
    """Without its three arguments."""
    done = subprocess.run([ROOT / "deploy/fleet/one-board.sh"], capture_output=True, text=True)

    assert (done.returncode, done.stderr[:7]) == (2, "usage: ")


PROGRAMS = {
    "scp": 'for to; do :; done; [ "${to%%:*}" != away ] && cp "$4" "$BOARD/"',
    "ssh": 'cd "$BOARD" && exec sh -c "$4"',
    "sudo": '[ "$1" != -E ] || shift; exec "$@"',
    "apt-get": 'echo "$*" >> said',
    "edge-client-setup": 'echo "setup $*" >> said; cat >> said; [ ! -e broken ]',
}
"""A network and a board in a folder: programs that write down what they were told."""


def test_a_board_is_set_up_over_ssh(tmp_path: Path) -> None:
    """The package is copied and installed, then the installer is run; the token is in no command line. Who is not there
    and what fails is one line each, with the board's own words in a file."""
    board, programs = tmp_path / "board", tmp_path / "bin"
    for folder in (board, programs):
        folder.mkdir()
    for name, does in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    package = tmp_path / "braid.deb"
    package.touch()
    facts = {"SERVER": "https://192.0.2.7:8470", "TOKEN": "SECRET", "FINGERPRINT": "ab12", "BOARD": str(board)}
    env = {**os.environ, **facts, "PATH": f"{programs}:{os.environ['PATH']}"}

    def one_board(host: str) -> subprocess.CompletedProcess[str]:
        command = [ROOT / "deploy/fleet/one-board.sh", host, package, "/srv/my notes.jsonl"]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)

    assert one_board("pi-1").stdout == "pi-1  ready\n"
    assert (board / "said").read_text().splitlines() == [
        "install --yes --quiet ./braid.deb",
        "setup --server https://192.0.2.7:8470 --token-file - --fingerprint ab12 --data /srv/my notes.jsonl",
        "SECRET",
    ]
    assert not (board / "braid.deb").exists()

    (board / "broken").touch()
    failed, away = one_board("pi-2"), one_board("away")
    assert (failed.returncode, away.returncode) == (1, 1)
    assert failed.stdout.startswith("pi-2  FAILED, see pi-2.log")
    assert away.stdout.startswith("away  NOT REACHED, see away.log")


def test_both_ways_know_the_installers_flags() -> None:
    """What they give `edge-client-setup`, which is the installer in the package."""
    (play,) = yaml.safe_load((ROOT / "deploy/fleet/playbook.yaml").read_text())
    texts = [(ROOT / "deploy/fleet/one-board.sh").read_text(), str(play["tasks"][-1])]
    usage = subprocess.run([ROOT / "deploy/install-board.sh", "--help"], capture_output=True, text=True).stdout

    for text in texts:
        flags = set(re.findall(r"(?<=[\s'+])--(?:server|token|data|fingerprint)[\w-]*", text))
        assert flags == {"--server", "--token-file", "--fingerprint", "--data"}
        assert all(re.search(rf"^  {flag} ", usage, re.MULTILINE) for flag in flags)
