"""Real clients under real memory limits: what a plan promises is kept, and memory that runs short costs no round."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from benchmarks.memory.control_group import ControlGroup, control_group
from benchmarks.memory.limited_join import Joined, aggregator, join, measure_board, new_state, write_text
from demo.fleet import Aggregator
from edge_client.errors import ExitCode
from quantize.random_base import write_random_base

pytestmark = pytest.mark.slow

MIB = 1 << 20
SHORT = {
    "train.scope": '"decoder"',
    "train.batch": "4",
    "train.micro_batch": "4",
    "train.local_steps": "3",
    "train.max_source_tokens": "64",
    "train.max_target_tokens": "16",
    "train.sketch_batches": "1",
    "merge.max_rank": "4",
    "merge.server_rank": "8",
}
LONG = {
    **SHORT,
    "merge.rule": '"weave"',  # trains A as well, which takes memory
    "train.scope": '"all"',
    "train.batch": "16",
    "train.micro_batch": "16",
    "train.local_steps": "16",
    "train.max_source_tokens": "256",
    "train.max_target_tokens": "64",
}
"""A step takes about a second of one processor, so that the round outlasts the first two checkpoints, and three times
the memory above the libraries that a micro-batch of one needs."""


@pytest.fixture(scope="module", autouse=True)
def groups() -> None:
    """Skips where no control group with a memory limit can be made."""
    try:
        with control_group("braid-test", 64 * MIB):
            return
    except OSError as error:
        pytest.skip(f"no control group with a memory limit can be made here: {error}")


@pytest.fixture(scope="module")
def arithmetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This machine's arithmetic, measured once for all boards of these tests."""
    return measure_board(tmp_path_factory.mktemp("measured"))


@pytest.fixture
def state(arithmetic: Path, tmp_path: Path) -> Path:
    """A new board's state folder."""
    return new_state(tmp_path / "state", arithmetic)


async def one_round(
    limit_bytes: int, folder: Path, state: Path, model: str = "builtin", settings: dict[str, str] = SHORT
) -> tuple[Joined, int]:
    """A run of one round for a board in a group with this limit: what it said, and how many processes were killed."""
    data = write_text(folder / "text.jsonl", words=60)
    async with aggregator(folder / "server", model, settings) as server:
        with control_group("braid-test", limit_bytes) as group:
            joined = await join(group, server, state, model=model, data=data)
            return joined, group.oom_kills


def assert_done(joined: Joined, limit_bytes: int) -> None:
    """The round was done, within a plan that the limit allows."""
    assert joined.exit_code == ExitCode.OK, joined.events[-1]
    assert joined.of("finished")[0]["rounds_done"] == 1
    assert joined.of("plan")[-1]["predicted_peak_bytes"] < limit_bytes
    assert not joined.of("backed_off")


async def test_a_round_is_done_where_a_plan_promised_it(tmp_path: Path, state: Path) -> None:
    """The builtin base at a small limit: no process is killed, and the plan is below the limit."""
    joined, oom_kills = await one_round(450 * MIB, tmp_path, state)

    assert_done(joined, 450 * MIB)
    assert oom_kills == 0


async def test_a_limit_that_is_too_small_is_refused_in_a_sentence(tmp_path: Path, state: Path) -> None:
    """Exit code MEMORY before any task, with what the smallest plan needs and what the board has."""
    joined, oom_kills = await one_round(300 * MIB, tmp_path, state)

    assert joined.exit_code == ExitCode.MEMORY
    assert "the smallest needs" in joined.of("error")[0]["message"]
    assert "control group limit" in joined.of("error")[0]["message"]
    assert [event["phase"] for event in joined.of("phase")] == ["measure"]  # how long its texts are: no task yet
    assert oom_kills == 0


async def test_the_base_shape_keeps_its_promise(tmp_path: Path, state: Path) -> None:
    """220 million random weights in 900 MiB."""
    write_random_base(tmp_path / "base", "base", seed=3)

    joined, oom_kills = await one_round(900 * MIB, tmp_path, state, str(tmp_path / "base"))

    assert_done(joined, 900 * MIB)
    assert oom_kills == 0


async def test_memory_that_others_take_costs_no_finished_step(tmp_path: Path, state: Path) -> None:
    """A program beside the board grows in mid-round: the kernel kills the worker, and the round goes on in a leaner way
    from the step that was saved, with the same strands. The server's log says so."""
    data = write_text(tmp_path / "text.jsonl", words=120)
    async with aggregator(tmp_path / "server", "builtin", LONG) as server:
        with control_group("braid-test", 700 * MIB) as group:
            joining = asyncio.ensure_future(join(group, server, state, model="builtin", data=data))
            saved_step = await first_saved_step(state, joining)
            async with growing(group):
                joined = await joining
            oom_kills = group.oom_kills
        events = await server_events(server)

    assert oom_kills >= 1, "the worker was not killed"
    assert joined.exit_code == ExitCode.OK, joined.events[-1]
    assert joined.of("finished")[0]["rounds_done"] == 1
    (backed_off,) = joined.of("backed_off")
    plans = joined.of("plan")  # on a busy machine the leaner one is told of more than once
    leaner = [plan["predicted_peak_bytes"] for plan in plans].index(backed_off["predicted_peak_bytes"])
    before = plans[leaner - 1]
    assert backed_off["predicted_peak_bytes"] < before["predicted_peak_bytes"]
    assert backed_off["ranks_total"] == before["ranks_total"]
    after = joined.events[joined.events.index(backed_off) :]
    steps = [event["step"] for event in after if event["event"] == "progress" and event["phase"] == "train"]
    assert min(steps) >= saved_step > 0
    assert any("memory ran short" in text for text in events)


async def first_saved_step(state: Path, joining: asyncio.Future[Joined]) -> int:
    """Waits for a checkpoint of a round that has begun; its step."""
    while not joining.done():
        for path in (state / "work").glob("train-*.training_state"):
            try:
                with safe_open(path, framework="numpy") as file:
                    step = int(json.loads(file.metadata()["numbers"])["step"])
            except (OSError, SafetensorError):
                continue  # replaced in this moment
            if step > 0:
                return step
        await asyncio.sleep(0.2)
    raise AssertionError(f"the round ended before a checkpoint was seen: {joining.result().events[-1]}")


GROW = """
import sys, time
held = []
for _ in range(int(sys.argv[1]) >> 24):
    held.append(b"x" * (16 << 20))
    time.sleep(0.1)
time.sleep(600)
"""
GROWS_TO_BYTES = 240 * MIB
"""Of 700 MiB this leaves about 450 (an interpreter is 10). The client and its worker reach 506 in each step of the
first plan, and 290 in one of the same strands in micro-batches of 2: however slow the machine, the first plan meets the
limit and not one strand has to go."""


@asynccontextmanager
async def growing(group: ControlGroup) -> AsyncIterator[None]:
    """Another program in the group, which takes more and more memory up to GROWS_TO_BYTES and keeps it."""
    command = group.command(sys.executable, "-c", GROW, str(GROWS_TO_BYTES))
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def server_events(server: Aggregator) -> list[str]:
    """The newest lines of the server's own log."""
    return list((await server.status())["events"])
