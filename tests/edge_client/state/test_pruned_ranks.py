"""What a board has pruned stays pruned: in later rounds, after restarts and power cuts, and not in another run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import Plan, TrainingMode, TrainJob
from edge_client.plan.pruning import limited
from edge_client.state.folder import StateFolder
from edge_client.state.pruned_ranks import keep_pruned, read_pruned
from tests.fakes.runs import SMALL_T5, run_of
from wire.codec import decode
from wire.messages import RoundSpec, Update
from wire.run import RunInfo

RUN = run_of(SMALL_T5, {"pruning": True, "trains_a": True}, max_rank=8)
N_WEIGHTS = len(RUN.weights)


# --- the file ---------------------------------------------------------------------------------------------------------


def make_job(path: Path, round_id: int, ranks: Sequence[int], run: RunInfo = RUN, board_id: str = "d-1") -> TrainJob:
    """Trains the manifest's weights at `ranks`, repeated."""
    plan = Plan(
        mode=TrainingMode(format="fp32", compute="fp32", micro_batch=1),
        ranks=tuple(ranks[i % len(ranks)] for i in range(N_WEIGHTS)),
        predicted_bytes=0,
        expected_peak_bytes=0,
        budget_bytes=0,
    )
    return TrainJob(
        base_folder="",
        data=DataSpec(""),
        board_id=board_id,
        run=run,
        spec=RoundSpec(round=round_id, version=round_id),
        plan=plan,
        adapter_path="",
        result_path="",
        pruned_path=str(path),
    )


def end_round(path: Path, round_id: int, planned: Sequence[int], lost: Sequence[int]) -> tuple[int, ...]:
    """A round that begins at what `planned` allows and gives up strands, all but one at most; the ranks it began at."""
    pruned = read_pruned(path, RUN, "d-1", round_id)
    assert pruned is not None
    job = make_job(path, round_id, limited(make_job(path, round_id, planned).plan.ranks, RUN.weights, pruned))
    pairs = enumerate(zip(RUN.weights, job.plan.ranks, strict=True))
    keep_pruned(job, {weight.name: max(1, rank - lost[i % len(lost)]) for i, (weight, rank) in pairs if rank})
    return job.plan.ranks


ranks_of_round = st.lists(st.integers(0, 8), min_size=1, max_size=5)
Round = tuple[list[int], list[int], bool]  # the plan's ranks, strands that are lost, and whether it is done twice


@pytest.mark.slow
@given(st.lists(st.tuples(ranks_of_round, ranks_of_round, st.booleans()), min_size=1, max_size=6), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_round_begins_at_the_least_of_its_plan_and_what_was_left(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[Round], every: int
) -> None:
    """For every weight: also where plans grow, shrink and leave weights out, where rounds are missed, and where a round
    is done twice, which begins at the same ranks again. No weight is left without a strand."""
    path = tmp_path_factory.mktemp("state") / "pruned.json"
    left = [8] * N_WEIGHTS
    for number, (planned, lost, twice) in enumerate(rounds, 1):
        expected = [min(planned[i % len(planned)], left[i]) for i in range(N_WEIGHTS)]
        for _ in range(1 + twice):
            assert end_round(path, every * number, planned, lost) == tuple(expected)
        for i, rank in enumerate(expected):
            kept = max(1, rank - lost[i % len(lost)])
            left[i] = kept if kept < rank else left[i]
    assert min(left) >= 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_never_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any bit may flip and any end be missing; the round's end leaves the file as it is, to be told and removed."""
    path = tmp_path_factory.mktemp("state") / "pruned.json"
    end_round(path, 1, (5, 3), (2, 0))
    sound = path.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    damaged = bytearray(sound)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(data.draw(st.sampled_from([bytes(damaged), sound[:place]])))

    assert read_pruned(path, RUN, "d-1", 2) is None

    broken = path.read_bytes()
    keep_pruned(make_job(path, 2, (5,)), {})
    assert path.read_bytes() == broken


def test_another_run_device_or_manifest_begins_anew(tmp_path: Path) -> None:
    """And its first round takes the file over; a run that does not prune reads nothing."""
    path = tmp_path / "pruned.json"
    end_round(path, 5, (4,), (1,))
    others = [
        (msgspec.structs.replace(RUN, run_id="other"), "d-1"),
        (msgspec.structs.replace(RUN, manifest="0" * 64), "d-1"),
        (RUN, "d-2"),
        (run_of(SMALL_T5, {"trains_a": True}, max_rank=8), "d-1"),
    ]
    assert len(read_pruned(path, RUN, "d-1", 6) or {}) == N_WEIGHTS
    assert [read_pruned(path, run, device, 6) for run, device in others] == [{}] * 4

    keep_pruned(make_job(path, 1, (4,), others[0][0]), {})

    assert read_pruned(path, others[0][0], "d-1", 2) == {} == read_pruned(path, RUN, "d-1", 6)


# --- the board --------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(board: Any, server: Any, tmp_path: Path) -> Path:
    """Three rounds of a run that prunes; its boards plan three strands of each weight, and lose one a round."""
    server.settings = {"pruning": True, "trains_a": True}
    server.rounds, server.max_rank = 3, 3
    path = tmp_path / "jobs"
    board.worker_flags = ("--prune", "--log", str(path), "--memory", str(tmp_path / "faults"))
    return path


def fetched(server: Any) -> list[str]:
    """Version and ranks (of the first weight; all are the same) of the adapters that rounds began with."""
    found = []
    for line in server.requests:
        if line.startswith("GET /v1/adapters/"):
            version, _, rest = line.removeprefix("GET /v1/adapters/").partition("?ranks=")
            (rank,) = set(rest.partition("&")[0].split("."))
            found.append(f"{version}:{rank}")
    return [one for one in found if not one.endswith(":0")]


def sent(server: Any) -> list[set[int]]:
    """Ranks in every update that was taken, in order."""
    updates = [decode(bytes(server.parts[digest]), Update) for _, digest in server.commits]
    return [{part.b.shape[1] for part in update.parts} for update in updates]


async def cut_power(_: web.Request) -> web.Response:
    """Ends the client as a kill would: nothing that it would have done next is done."""
    raise web.HTTPUnauthorized


async def join_until_cut(board: Any) -> None:
    patient = board.backoff

    def impatient(**arguments: Any) -> Any:
        return patient(**{**arguments, "attempts": 1})

    board.backoff = impatient
    with pytest.raises(Exception, match=r"not as a Braid|401"):
        await board.join()
    board.backoff = patient


@pytest.mark.slow
async def test_each_round_begins_where_the_one_before_ended(board: Any, server: Any, log: Path) -> None:
    """Downloads, updates, the plans that are told and the status all have the true ranks."""
    await board.join()

    assert fetched(server) == ["1:3", "2:2", "3:1"]
    assert sent(server) == [{2}, {1}, {1}]
    assert list(dict.fromkeys(event["max_rank"] for event in board.events("plan"))) == [3, 2, 1]
    status = json.loads((board.folder / "status.json").read_text())
    assert (status["max_rank"], status["ranks_total"]) == (1, len(server.run().weights))


@pytest.mark.slow
async def test_a_restart_between_update_and_acceptance_changes_nothing(board: Any, server: Any, log: Path) -> None:
    """The update that is on disk is sent, and the rounds go on at the ranks it left."""
    server.faults["PATCH /v1/uploads/1"] = [cut_power]
    await join_until_cut(board)
    assert server.fired and not server.commits

    await board.join()

    assert fetched(server) == ["1:3", "2:2", "3:1"]
    assert sent(server) == [{2}, {1}, {1}]


@pytest.mark.slow
async def test_a_round_that_is_done_again_begins_at_the_same_ranks(board: Any, server: Any, log: Path) -> None:
    """Its update was ready and its files are lost before the server has it: trained again, it loses no more."""
    server.faults["PATCH /v1/uploads/2"] = [cut_power]
    await join_until_cut(board)
    assert len(server.commits) == 1
    shutil.rmtree(board.folder / "work")

    await board.join()

    assert fetched(server) == ["1:3", "2:2", "2:2", "3:1"]
    assert sent(server) == [{2}, {1}, {1}]


@pytest.mark.slow
async def test_a_worker_killed_between_ranks_and_result_ends_the_round_once(board: Any, server: Any, log: Path) -> None:
    """The worker that ends it again sends, and keeps, the same ranks."""
    board.worker_flags += ("--kill", "kept", "--kill", "kept")

    await board.join()

    assert log.with_name("faults").read_text().splitlines() == ["kill kept"] * 2
    assert sent(server) == [{2}, {1}, {1}]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "is_told"), [(damage, True), (Path.unlink, False)])
async def test_what_is_lost_costs_pruning_alone(
    board: Any, server: Any, log: Path, harm: Callable[[Path], None], is_told: bool
) -> None:
    """The next round begins at the plan's ranks, and of a damaged file there is one sentence."""

    async def lose(_: web.Request) -> None:
        harm(board.folder / "pruned.json")

    server.faults["PATCH /v1/uploads/1"] = [lose]

    await board.join()

    assert len(server.fired) == 1
    assert fetched(server) == ["1:3", "2:3", "3:2"]
    told = [event for event in board.events("notice") if "earlier rounds have pruned" in event["message"]]
    assert len(told) == is_told


@pytest.mark.slow
async def test_leaving_forgets_what_was_pruned(board: Any, server: Any, log: Path) -> None:
    """A board that joins anew is another device."""
    await board.join()
    assert (board.folder / "pruned.json").exists()

    StateFolder(board.folder).forget_identity()

    assert not (board.folder / "pruned.json").exists()
