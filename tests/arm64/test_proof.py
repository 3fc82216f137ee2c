"""The federation of two kinds of processor, as far as it can be looked at without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from arm64.emulated import Emulated
from arm64.proof import CUT, N_EXAMPLES, SETTINGS, Watcher, write_text
from demo.fleet import BoardSpec, BoardView


def view(**last: object) -> BoardView:
    return BoardView(BoardSpec(CUT.board, "data", "2GiB"), state=str(last.get("phase", "waiting")), last=dict(last))


def test_the_kill_falls_into_a_round() -> None:
    """Of those that are run, and before its last step."""
    assert CUT.round <= int(SETTINGS["run.rounds"])
    assert 1 < CUT.at_step < int(SETTINGS["train.local_steps"])


def test_where_it_went_on_is_the_first_step_after_the_kill(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the round in which it was killed: not a step before, nor one of another phase."""
    watcher = Watcher()
    seen = view(phase="train", round=CUT.round, step=CUT.at_step)
    watcher.watch([seen])
    watcher.say(f"⚡ SIGKILL to emulated in round {CUT.round}, step 4 of 12")
    seen.restarts = 1
    for phase, step in (("probe", 1), ("train", 3), ("train", 4)):
        seen.state = phase
        seen.last.update(phase=phase, step=step)
        watcher.watch([seen])

    assert watcher.killed == f"round {CUT.round}, step 4 of 12"
    assert watcher.resumed_step == 3
    assert "SIGKILL" in capsys.readouterr().err


def test_boards_have_examples_of_one_kind_that_differ(tmp_path: Path) -> None:
    """Each with a source and a target."""
    texts = [Path(write_text(tmp_path / str(shift), shift)).read_text().splitlines() for shift in (0, 5)]

    assert [len(lines) for lines in texts] == [N_EXAMPLES] * 2
    assert texts[0] != texts[1]
    assert all(json.loads(line).keys() == {"source", "target"} for line in texts[0])


def test_nothing_of_this_machine_but_the_core_reaches_a_root(tmp_path: Path) -> None:
    """Commands inside get variables of their own."""
    words = Emulated(tmp_path, "cortex-a53").words("edge-client", "doctor")

    assert words[:4] == ("chroot", str(tmp_path), "/usr/bin/env", "-i")
    assert "QEMU_CPU=cortex-a53" in words
    assert words[-2:] == ("edge-client", "doctor")
