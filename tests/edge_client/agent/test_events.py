"""What a board says when it begins to call its server."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest

from edge_client.agent.console import Console
from edge_client.agent.events import Events
from edge_client.jobs.messages import Plan, Progress, TrainingMode
from edge_client.state.folder import StateFolder
from edge_client.state.status import StatusFile
from wire.messages import Receipt, RoundSpec, Task

MIB = 1 << 20


@pytest.mark.parametrize(
    ("server", "is_told"),
    [
        ("http://192.0.2.1:1", True),
        ("http://board.example", True),
        ("https://192.0.2.1:1", False),
        ("http://127.0.0.1:9", False),
        ("http://[::1]:9", False),
        ("http://localhost:9", False),
    ],
)
def test_plain_http_to_another_machine_is_told(board: Any, server: str, is_told: bool) -> None:
    """Before anything is sent, once, with what to do."""
    events = Events(Console(as_json=True, stream=board.output), None, None, None)  # type: ignore[arg-type]

    events.calling(server)

    notices = board.events("notice")
    assert bool(notices) == is_told
    assert all("plain HTTP" in notice["message"] and "https://" in notice["hint"] for notice in notices)


@pytest.mark.slow
async def test_a_board_warns_of_plain_http_when_it_joins(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loopback address is as good as another one here."""
    monkeypatch.setattr("braid_common.loopback.is_loopback", lambda host: False)

    await board.join()

    assert ["plain HTTP" in notice["message"] for notice in board.events("notice")] == [True]


def test_a_probe_over_its_budget_says_what_takes_the_memory(board: Any) -> None:
    """A build of torch for CUDA on a small board: what there is, what torch takes, and who knows the right one."""
    task = Task(kind="train", run_id="r", spec=RoundSpec(round=1, version=0))
    mode = TrainingMode(format="nf4", compute="fp32", micro_batch=4)
    plan = Plan(mode=mode, ranks=(3,), predicted_bytes=370 * MIB, expected_peak_bytes=370 * MIB, budget_bytes=655 * MIB)
    events = Events(Console(as_json=False, stream=board.output), None, None, None)  # type: ignore[arg-type]

    events.probed(task, plan, {"peak_bytes": 918.0 * MIB, "imports_bytes": 695.0 * MIB, "step_s": 1.0})
    events.probed(task, plan, {"peak_bytes": 380.0 * MIB, "imports_bytes": 241.0 * MIB, "step_s": 1.0})

    text = board.output.getvalue()
    assert text.count("more than the 655 MiB there are") == 1
    assert text.count("importing torch and its libraries takes 695 MiB of that") == 1
    assert "edge-client doctor" in text


def test_a_pause_whose_reason_changes_ends_where_it_began(board: Any) -> None:
    """The status has the newest reason, and afterwards the phase that was paused; what is not told aloud is there
    too."""
    status = StatusFile(StateFolder(board.folder))
    board.folder.mkdir()
    notes: list[str] = []
    reports: Any = SimpleNamespace(note=lambda round_id, text: notes.append(text))
    events = Events(Console(as_json=True, stream=board.output), status, reports, None)  # type: ignore[arg-type]
    status.update(phase="train", round=3)

    events.paused("70.5 °C, waits for below 65 °C", aloud=True)
    events.paused("waits for 22:00", aloud=False)
    assert (status.status.phase, status.status.waits) == ("pause", "waits for 22:00")
    events.unpaused(aloud=True)

    assert (status.status.phase, status.status.waits) == ("train", "")
    assert notes == ["its training pauses: 70.5 °C, waits for below 65 °C", "its training goes on"]
    assert [event["round"] for event in board.events("paused") + board.events("unpaused")] == [3, 3]


async def test_a_round_that_learns_from_rewards_tells_of_them(board: Any, server: Any) -> None:
    """A reward that is left out is told once a round, its mean and the distance that was travelled when the round is
    done; a round of right answers has neither."""
    task = Task(kind="train", run_id="run-1", spec=RoundSpec(round=3, version=2))
    why = "reward program is left out of this round: /no/such/judge cannot be started: No such file or directory"
    receipt, numbers = Receipt(accepted=True), {"loss": 1.25, "reward": 0.5, "reward_length": 0.5, "kl": 0.0123}
    async with board.client() as client:
        await client.enrol()
        for left_out in ("", why, why, "", why):
            client._events.progress(
                task,
                Progress(phase="train", step=1, steps=9, loss=1.0, tokens_per_s=1.0, peak_bytes=1, left_out=left_out),
            )
        client._events.answered(task, receipt, numbers)
        client._events.console = Console(as_json=False, stream=(plain := StringIO()))
        client._events.answered(task, receipt, numbers)
        client._events.answered(task, receipt, {"loss": 1.25})

    assert [event["message"] for event in board.events("notice")] == [why, why]
    assert board.events("round_done")[0]["reward_length"] == 0.5
    assert "round 3: accepted, loss 1.250, reward 0.500, kl 0.012; " in plain.getvalue()
    assert "round 3: accepted, loss 1.250; " in plain.getvalue()
