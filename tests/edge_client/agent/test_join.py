"""A board's whole life against a server that speaks the real protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edge_client.agent.console import Console
from edge_client.agent.manners.leave_to_train import Rules
from edge_client.agent.preflight import preflight
from edge_client.errors import (
    ClientError,
    ConfigError,
    DiskError,
    ExitCode,
    NoPlanError,
    RefusedError,
    RevokedError,
    UnreachableError,
)
from edge_client.plan.round_cost import RoundLimits
from edge_client.state.folder import StateFolder
from tests.fakes.sysfs import RASPBERRY_PI_4, lay_out


async def test_a_board_profiles_trains_every_round_evaluates_and_ends(board: Any, server: Any) -> None:
    """One join carries a board from enrolment to the end of the run, sending each update once."""
    await board.join()

    assert server.profiles == 1
    assert [round_id for round_id, _ in server.commits] == [1, 2]
    evaluations = [report for report in server.reports if report.kind == "evaluation"]
    assert [report.version for report in evaluations] == [1, 2, 3]
    assert "rougeL" in evaluations[-1].values
    assert board.events("finished")[0]["rounds_done"] == 2
    assert list((board.folder / "work").iterdir()) == [], "finished work is swept"


async def test_events_carry_what_the_demo_shows(board: Any) -> None:
    """Plan, progress, round and evaluation events have the documented fields."""
    await board.join()

    plan, progress = board.events("plan")[-1], board.events("progress")[-1]
    assert {"format", "ranks_total", "max_rank", "predicted_peak_bytes", "budget_bytes", "round"} <= plan.keys()
    assert {"step", "steps", "loss", "tokens_per_s", "peak_bytes", "bytes_up", "bytes_down"} <= progress.keys()
    assert {"accepted", "reason", "bytes_up"} <= board.events("round_done")[-1].keys()
    assert {"loss", "rougeL", "version"} <= board.events("evaluation")[-1].keys()


async def test_the_adapter_is_fetched_with_the_ranks_of_the_plan(board: Any, server: Any) -> None:
    """The update has the ranks that the plan printed, and the plan is reported once per change."""
    await board.join()

    plans = [report for report in server.reports if report.kind == "plan"]
    assert plans[-1].values["ranks_total"] == board.events("plan")[-1]["ranks_total"]
    assert len(plans) == len({tuple(plan.values.items()) for plan in plans})


async def test_an_enrolled_board_needs_no_token(board: Any, server: Any) -> None:
    """A second start uses the credential on disk and does not enrol again."""
    async with board.client() as client:
        await client.enrol()

    await board.join(token="", server="")

    assert server.requests.count("POST /v1/devices") == 1
    assert server.state == "finished"


async def test_an_enrolment_whose_answer_was_lost_is_the_same_device_again(board: Any, server: Any) -> None:
    """The install id is on disk before the first request, so that no second device appears."""

    async def lose_answer(request: Any) -> None:
        await server.enrol(request)
        request.transport.abort()

    server.faults["POST /v1/devices"] = [lose_answer]

    await board.join()

    assert server.fired == ["POST /v1/devices"]
    assert len(server.devices) == 1


async def test_the_credential_is_kept_for_the_owner_alone(board: Any) -> None:
    """identity.json has mode 0600, the folder 0700."""
    await board.join()

    assert (board.folder / "identity.json").stat().st_mode & 0o777 == 0o600
    assert board.folder.stat().st_mode & 0o777 == 0o700


async def test_a_wrong_token_is_refused(board: Any) -> None:
    """No retry, one sentence, exit code REFUSED."""
    with pytest.raises(RefusedError, match="token") as caught:
        await board.join(token="wrong")

    assert caught.value.exit_code == ExitCode.REFUSED
    assert board.slept_s == []


async def test_a_missing_token_is_noticed_without_a_request(board: Any, server: Any) -> None:
    """A first enrolment needs a token."""
    with pytest.raises(ConfigError, match="token"):
        await board.join(token="")

    assert server.requests == []


async def test_a_revoked_board_leaves(board: Any, server: Any) -> None:
    """403 ends even an enrolled client, with its own exit code."""
    async with board.client() as client:
        await client.enrol()
    server.revoked = True

    with pytest.raises(RevokedError) as caught:
        await board.join()

    assert caught.value.exit_code == ExitCode.REVOKED


async def test_a_refused_update_is_told_and_the_run_goes_on(board: Any, server: Any) -> None:
    """accepted=false is no error."""
    server.refuse_updates = "its norm is 40 times the median"

    await board.join()

    assert server.state == "finished"
    done = [event for event in board.events("round_done") if event["kind"] == "train"]
    assert {event["reason"] for event in done} == {"its norm is 40 times the median"}
    assert board.events("finished")[0]["rounds_done"] == 0


async def test_a_round_that_closed_while_training_is_dropped(board: Any, server: Any) -> None:
    """410 for the upload: the work is thrown away and the next round is trained."""

    async def close_round(_: Any) -> None:
        server._round_done()

    server.faults["PATCH /v1/uploads/1"] = [close_round]

    await board.join()

    assert [round_id for round_id, _ in server.commits] == [2]
    assert any("is over" in event["message"] for event in board.events("notice"))


async def test_training_stops_when_the_server_has_gone_on(board: Any, server: Any) -> None:
    """While the worker works, the client notices that nobody waits for the result any more."""
    board.watch_every_s = 0.02
    board.worker_flags = ("--hang",)

    async def move_on(_: Any) -> None:
        server._round_done()

    server.faults["GET /v1/work?wait=0"] = [move_on] * 3

    await board.join()

    assert server.commits == []
    assert server.state == "finished"


def is_training(board: Any) -> bool:
    return any(event["phase"] == "train" for event in board.events("phase"))


async def test_training_goes_on_where_late_updates_count(board: Any, server: Any, tmp_path: Path) -> None:
    """The server has gone on by two rounds while the worker works: the result is sent for the round it was trained for,
    and the next task is the newest."""
    board.watch_every_s = 0.02
    server.staleness_limit, server.rounds = 2, 4
    hold = tmp_path / "hold"
    hold.touch()
    board.worker_flags = ("--hold", str(hold))
    moves = 0

    async def move_on(_: Any) -> None:
        nonlocal moves
        moves += is_training(board)
        if 1 <= moves <= 2:
            server._round_done()
        elif moves == 4:  # looked at again after the last move, and still at work
            hold.unlink()

    server.faults["GET /v1/work?wait=0"] = [move_on] * 100

    await board.join()

    assert moves >= 4
    assert [round_id for round_id, _ in server.commits] == [1, 3, 4]
    assert not any("is over" in event["message"] for event in board.events("notice"))


async def test_training_stops_where_its_update_would_be_too_late(board: Any, server: Any) -> None:
    """One version more than the limit: the work is dropped, and the newest round is trained."""
    board.watch_every_s = 0.02
    server.staleness_limit, server.rounds = 1, 4
    board.worker_flags = ("--hang",)

    async def move_on(_: Any) -> None:
        if is_training(board) and server.state == "training":
            server._round_done()

    server.faults["GET /v1/work?wait=0"] = [move_on] * 100

    await board.join()

    assert server.commits == [] and server.state == "finished"
    over = [event["message"] for event in board.events("notice") if "is over" in event["message"]]
    assert over[0].startswith("round 1 is over") and "version 3" in over[0]


async def test_a_late_task_is_gone_on_with_after_a_restart(board: Any, server: Any) -> None:
    """The power goes while round 1 is trained, and comes back in round 2: where late updates count, round 1 is finished
    first."""
    board.watch_every_s = 0.02
    server.staleness_limit, server.rounds = 2, 3
    board.worker_flags = ("--hang",)
    training = asyncio.Event()

    async def watch(_: Any) -> None:
        if is_training(board):
            training.set()

    server.faults["GET /v1/work?wait=0"] = [watch] * 100
    async with board.client() as client:
        life = asyncio.ensure_future(client.run_to_end())
        await training.wait()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    server._round_done()
    assert server.round == 2 and not server.commits
    board.worker_flags = ()

    await board.join()

    assert [round_id for round_id, _ in server.commits] == [1, 2, 3]


async def test_a_worker_killed_at_the_smallest_plan_is_started_again(board: Any, server: Any, tmp_path: Path) -> None:
    """SIGKILL costs the step, not the round: where there is no smaller plan and the board says that there is memory,
    the same plan goes on."""
    board.worker_flags = ("--kill", "train:1", "--memory", str(tmp_path / "faults"))

    await board.join()

    assert [round_id for round_id, _ in server.commits] == [1, 2]
    assert any("memory ran out" in event["message"] for event in board.events("notice"))
    assert not board.events("backed_off")


async def test_too_little_memory_says_how_much_is_needed(board: Any) -> None:
    """No plan fits: exit code MEMORY and the size of the smallest plan, before any task."""
    board.memory_bytes = 100 << 20

    async with board.client() as client:
        with pytest.raises(NoPlanError, match="smallest needs") as caught:
            await client.run_to_end()

    assert caught.value.exit_code == ExitCode.MEMORY


async def test_a_failure_of_the_worker_keeps_its_exit_code(board: Any) -> None:
    """What the worker says is wrong with the data is told as if it had happened here."""
    board.worker_flags = ("--fail", "4")

    with pytest.raises(ClientError, match="the fake worker fails") as caught:
        await board.join()

    assert caught.value.exit_code == ExitCode.DATA


async def test_an_unreachable_server_ends_a_first_enrolment(board: Any) -> None:
    """One clear line instead of waiting for ever."""
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        await board.join(server="http://127.0.0.1:9")

    assert caught.value.exit_code == ExitCode.UNREACHABLE
    assert "aggregator serve" in caught.value.hint


async def test_status_file_tells_what_happened(board: Any) -> None:
    """status.json is whole JSON with the documented fields at the end."""
    await board.join()

    status = json.loads((board.folder / "status.json").read_text())
    assert status["phase"] == "finished"
    assert status["rounds_done"] == 2
    assert status["ranks_total"] > 0


def test_a_preflight_that_fails_leaves_the_folder_to_others(board: Any) -> None:
    """After it has the folder's lock too: a farewell is sent from a folder on which no client runs."""

    def fail(*_: object) -> None:
        raise DiskError("the disk is full")

    with pytest.raises(DiskError):
        preflight(board.settings(), Console(), dataclasses.replace(board.probes(), measure=fail))

    assert not StateFolder(board.folder).is_locked()


def test_limits_on_a_round_are_read_before_anything_else(board: Any) -> None:
    """--round-time and --round-traffic reach the planner with this board's measured speed; nonsense is named."""
    found = preflight(board.settings(round_time="10min", round_traffic="5MB"), Console(), board.probes())
    found.folder.unlock()

    assert (found.limits.round_s, found.limits.round_bytes) == (600.0, 5_000_000)
    assert found.limits.gflops == {"bf16": 5.0, "fp32": 20.0}
    for wrong in ({"round_time": "soon"}, {"round_traffic": "-3"}):
        with pytest.raises(ConfigError, match=r"soon|-3"):
            preflight(board.settings(**wrong), Console(), board.probes())


def test_rules_when_to_train_are_read_before_anything_else(board: Any, tmp_path: Path) -> None:
    """They reach the client; a machine that tells no temperature is a wrong setting, and no folder is made."""
    probes = dataclasses.replace(board.probes(), root=lay_out(tmp_path / "root", RASPBERRY_PI_4))
    found = preflight(board.settings(below="70C", only_on_mains=True), Console(stream=board.output), probes)
    found.folder.unlock()

    assert found.rules == Rules(below_c=70.0, only_on_mains=True)
    assert "counts as on mains" in board.output.getvalue()
    with pytest.raises(ConfigError, match="tells no temperature"):
        preflight(board.settings(below="70C"), Console(), dataclasses.replace(probes, root=tmp_path))


async def test_a_limit_that_no_round_keeps_is_refused_before_any_task(board: Any, server: Any) -> None:
    """A byte of traffic is not enough for the first strand: exit code MEMORY, as for every board that no plan fits."""
    board.limits = RoundLimits(round_bytes=1)

    async with board.client() as client:
        with pytest.raises(NoPlanError, match="moves"):
            await client.run_to_end()

    assert server.profiles == 0
