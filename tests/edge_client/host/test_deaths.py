"""Deaths of children by signals: each is named, with its likely cause, a remedy and a documented status."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

import pytest

from edge_client.errors import ExitCode
from edge_client.host import deaths
from edge_client.host.deaths import explain_death
from edge_client.host.forked import ForkedError, run_forked
from tests.edge_client.host.torch_build.boards import BOARDS

NOT_HEALED = {ExitCode.TORCH, ExitCode.CONFIG, ExitCode.MEMORY}
"""Statuses that the unit does not start again after."""


@pytest.fixture
def pi4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a Raspberry Pi 4 on which torch 2.10 was installed."""
    monkeypatch.setattr(deaths, "torch_version", lambda: "2.10.0")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    return BOARDS["Pi 4"].lay_out(tmp_path)


@pytest.mark.parametrize(
    ("number", "code", "cause"),
    [
        (signal.SIGILL, ExitCode.TORCH, "torch 2.10 dies of SIGILL when it is imported on cores of ARMv8.0"),
        (signal.SIGSEGV, ExitCode.TORCH, "memory that is not its own"),
        (signal.SIGBUS, ExitCode.TORCH, "is not there"),
        (signal.SIGABRT, ExitCode.TORCH, "gave up"),
        (signal.SIGSYS, ExitCode.CONFIG, "SystemCallFilter"),
        (signal.SIGKILL, ExitCode.MEMORY, "memory ran out"),
    ],
)
def test_a_death_has_a_cause_a_remedy_and_a_status(
    number: signal.Signals, code: ExitCode, cause: str, pi4: Path
) -> None:
    """On the board where it happens; none of them is started again for ever."""
    death = explain_death("importing torch", -number, uses_torch=True, root=pi4)

    assert death.message.startswith("importing torch ")
    assert cause in death.message
    assert death.hint
    assert death.exit_code is code
    assert code in NOT_HEALED


def test_the_remedy_is_the_build_for_the_board(pi4: Path) -> None:
    """By its processor, which is named in words where nothing is known about the version."""
    assert "pip install torch==2.9.1" in explain_death("x", -signal.SIGILL, uses_torch=True, root=pi4).hint

    death = explain_death("x", -signal.SIGILL, uses_torch=False, root=pi4)
    assert "this processor (ARM Cortex-A72) does not have" in death.message
    assert "torch" not in death.hint


def test_signals_that_somebody_sends_are_told_as_such() -> None:
    """Nothing is wrong with the board then; an unknown number is a number, and a status is no signal."""
    assert "SIGTERM, which somebody sent" in explain_death("x", -signal.SIGTERM, uses_torch=True).message
    assert "signal 63" in explain_death("x", -63, uses_torch=True).message
    death = explain_death("x", 7, uses_torch=True)
    assert (death.message, death.exit_code) == ("x ended with status 7", ExitCode.INTERNAL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGILL, 12), (signal.SIGSEGV, 12), (signal.SIGKILL, 6)])
def test_a_check_that_dies_is_explained(number: signal.Signals, code: int) -> None:
    """The fault happens in a true child; before, all were "a check ended with status -4"."""

    def die() -> int:
        faulthandler.disable()  # pytest's would print where
        os.kill(os.getpid(), number)
        return 0

    with pytest.raises(ForkedError) as caught:
        run_forked(die, int, who="the check", if_killed=("memory ran out", "stop others"), uses_torch=True)

    assert caught.value.exit_code == code
    assert "status -" not in caught.value.message
    assert caught.value.hint
