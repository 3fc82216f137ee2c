"""Long polls are bounded in number, and end with the server."""

from __future__ import annotations

import asyncio
from typing import Any

from aggregator.run.long_polls import MAX_POLLS


async def test_a_board_cannot_hold_any_number_of_long_polls(make_folder: Any, start: Any) -> None:
    """Those beyond a few are answered at once, with a pause."""
    server = await start(make_folder())
    board = await server.board("ada")
    await board.send_profile()
    polls = [asyncio.ensure_future(board.work(wait_s=50)) for _ in range(MAX_POLLS + 2)]

    done, waiting = await asyncio.wait(polls, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert {poll.result().kind for poll in done} == {"wait"} and all(poll.result().retry_after_s > 0 for poll in done)
    for poll in waiting:
        poll.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_long_polls_end_when_the_server_stops(make_folder: Any, start: Any, stop: Any) -> None:
    """Stopping does not wait for a poll's whole time."""
    server = await start(make_folder())
    board = await server.board("ada")
    await board.send_profile()
    polling = asyncio.ensure_future(board.work(wait_s=50))
    await asyncio.sleep(0.05)

    await asyncio.wait_for(stop(server), 10)

    await asyncio.gather(polling, return_exceptions=True)
