"""Memory that runs short: tried out before work is at stake, and survived with a leaner plan after it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge_client.errors import ExitCode, NoPlanError
from edge_client.jobs.sizes import IMPORTS_BYTES
from edge_client.plan.situation import CLIENT_BYTES
from edge_client.worker.process import WorkerLost
from quantize.formats import FORMATS

pytestmark = pytest.mark.slow  # a client and its worker, more than once

MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One job as the fake worker's log tells it."""

    kind: str
    round: int
    strands: int
    way: tuple[str, int]  # format, micro-batch
    first_step: int


@pytest.fixture
def log(board: Any, tmp_path: Path) -> Path:
    """The fake worker writes down every job, and which faults have happened. The run's micro-batches are large, so that
    there is something to save."""
    path = tmp_path / "jobs"
    board.server.settings = {"batch": 16, "micro_batch": 16, "max_source_tokens": 512, "max_target_tokens": 128}
    board.worker_flags = ("--log", str(path), "--memory", str(tmp_path / "faults"))
    return path


def rows(log: Path, kind: str) -> list[Row]:
    found = [line.split() for line in log.read_text().splitlines()]
    return [Row(r[0], int(r[1]), int(r[3]), (r[4], int(r[5])), int(r[6])) for r in found if r[0] == kind]


def faults(log: Path) -> list[str]:
    return log.with_name("faults").read_text().splitlines()


async def first_plan(board: Any) -> dict[str, Any]:
    """What the board plans with all of its memory, before any probe."""
    async with board.client() as client:
        identity, run = await client.enrol()
        await client.prepare(identity.device, run)
    plan: dict[str, Any] = board.events("plan")[0]
    return plan


@pytest.mark.parametrize("fault", [("--kill", "train:1"), ("--fail-once", "train")])
async def test_a_round_goes_on_with_the_same_strands(
    board: Any, server: Any, log: Path, fault: tuple[str, str]
) -> None:
    """A worker that is killed, or whose allocation fails, costs no finished step; the server is told."""
    board.worker_flags += fault

    await board.join()

    assert len(faults(log)) == 1
    before, after, _ = rows(log, "train")
    assert (before.round, after.round, before.strands) == (1, 1, after.strands)
    assert after.first_step == (1 if fault[0] == "--kill" else 0)
    (backed_off,) = board.events("backed_off")
    planned = [event["predicted_peak_bytes"] for event in board.events("plan")]
    assert backed_off["predicted_peak_bytes"] == planned[-1] < max(planned)
    told = [report for report in server.reports if report.kind == "event"]
    assert [report.text for report in told] == [backed_off["message"]]
    assert [round_id for round_id, _ in server.commits] == [1, 2]


async def test_fewer_strands_where_no_way_fits_with_all(board: Any, server: Any, log: Path) -> None:
    """The adapter is fetched again at the smaller ranks, and the saved training is kept."""
    server.max_rank, board.cache_bytes = 48, 0  # else the encoding pass needs most, and strands cost nothing
    board.worker_flags += ("--kill", "train:1")
    board.memory_left_bytes = await least_memory(board) + MIB // 5

    await board.join()

    before, after, _ = rows(log, "train")
    assert 0 < after.strands < before.strands
    assert after.first_step == 1
    fetched = [line for line in server.requests if line.startswith("GET /v1/adapters/1")]
    assert len(set(fetched)) == 2
    assert [round_id for round_id, _ in server.commits] == [1, 2]


async def least_memory(board: Any) -> int:
    """Bytes below which the board refuses."""
    board.memory_bytes, memory_bytes = 100 * MIB, board.memory_bytes
    with pytest.raises(NoPlanError) as caught:
        await first_plan(board)
    board.memory_bytes = memory_bytes
    board.output.truncate(0)
    return int(caught.value.message.split("(")[1].split()[0])


async def test_a_way_is_probed_once_for_all_time(board: Any, log: Path) -> None:
    """One probe before the first work; a client that is started again remembers."""
    flags = board.worker_flags
    board.worker_flags = (*flags, "--hang")
    board.watch_every_s = 0.02
    training = asyncio.Event()

    async def look(_: Any) -> None:
        if any(event["phase"] == "train" for event in board.events("progress")):
            training.set()

    board.server.faults["GET /v1/work?wait=0"] = [look] * 1000
    first = asyncio.ensure_future(board.join())
    await training.wait()
    first.cancel()
    await asyncio.wait([first])
    board.worker_flags = flags

    await board.join()

    jobs = log.read_text().splitlines()
    assert jobs[0].startswith("probe")
    ways = [row.way[0] for row in rows(log, "probe")]
    assert len(ways) == len(set(ways)) == len(board.events("probe"))


async def test_a_probe_that_takes_too_much_leads_to_a_smaller_plan_before_any_work(board: Any, log: Path) -> None:
    """What was measured counts, not what was predicted."""
    plan = await first_plan(board)
    board.memory_bytes = plan["predicted_peak_bytes"] + CLIENT_BYTES + MIB
    board.worker_flags += ("--took", f"{plan['format']}={plan['predicted_peak_bytes'] + 40 * MIB}")

    await board.join()

    assert rows(log, "probe")[0].way[0] == plan["format"]
    first = rows(log, "profile")[0]
    assert (first.way, first.strands) != ((plan["format"], plan["micro_batch"]), plan["ranks_total"])
    assert not board.events("backed_off"), "nothing was at stake"


async def test_no_probe_over_the_budget_is_accepted(board: Any, log: Path) -> None:
    """918 MiB in a budget of 655, of which torch takes 695: refused before any work, and it is told what takes it."""
    board.memory_bytes = 655 * MIB + CLIENT_BYTES
    for format in FORMATS:
        board.worker_flags += ("--took", f"{format}={918 * MIB}")
    board.worker_flags += ("--imports", str(695 * MIB))

    with pytest.raises(NoPlanError) as caught:
        await board.join()

    assert caught.value.exit_code == ExitCode.MEMORY
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"probe"}, "nothing was begun"
    (probe,) = board.events("probe")
    assert probe["imports_bytes"] == 695 * MIB
    assert probe["peak_bytes"] == 918 * MIB > probe["budget_bytes"]


async def test_heavy_imports_leave_room_for_a_leaner_plan(board: Any, server: Any, log: Path) -> None:
    """What the imports take above the usual is taken off every plan's room, and the board trains with what is left."""
    plan = await first_plan(board)
    board.memory_bytes = plan["predicted_peak_bytes"] + 100 * MIB + CLIENT_BYTES
    for format in FORMATS:
        board.worker_flags += ("--took", f"{format}={plan['predicted_peak_bytes'] + 90 * MIB}")
    board.worker_flags += ("--imports", str(IMPORTS_BYTES + 90 * MIB))

    await board.join()

    assert server.state == "finished"
    assert rows(log, "train")
    assert all(event["predicted_peak_bytes"] <= event["budget_bytes"] for event in board.events("plan"))


@pytest.mark.parametrize(("name", "n_jobs", "code"), [("SIGILL", 1, 12), ("SIGSEGV", 5, 12)])
async def test_a_worker_that_dies_of_its_torch_ends_the_client(
    name: str, n_jobs: int, code: int, board: Any, log: Path
) -> None:
    """An instruction that the processor lacks is not tried again; a crash is, a few times. Neither is status 1."""
    board.worker_flags += ("--kill", "probe") * 9 + ("--signal", name)

    with pytest.raises(WorkerLost, match=f"died of {name}") as caught:
        await board.join()

    assert caught.value.exit_code == code
    assert len(faults(log)) == n_jobs


async def test_a_probe_that_is_killed_counts_as_running_short(board: Any, server: Any, log: Path) -> None:
    """The next plan is made for less memory, and the run goes on."""
    board.worker_flags += ("--kill", "probe")

    await board.join()

    assert faults(log) == ["kill probe"]
    budgets = [event["budget_bytes"] for event in board.events("plan")]
    assert budgets[-1] < budgets[0]
    assert server.state == "finished"
    assert not board.events("backed_off")


async def test_a_board_that_is_short_for_ever_says_so(board: Any, log: Path) -> None:
    """A worker that is killed again and again ends the client with exit code MEMORY, not in a loop."""
    board.worker_flags += ("--kill", "train") * 9

    with pytest.raises(NoPlanError) as caught:
        await board.join()

    assert caught.value.exit_code == ExitCode.MEMORY
    assert 2 <= len(faults(log)) <= 5
