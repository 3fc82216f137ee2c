"""One run of the product: a server, its boards, and if asked a power cut on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.fleet import Aggregator, Board, BoardSpec, BoardView, DemoError, Event

DOWN_S = 1.5
"""How long the killed board stays off."""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Kill `board` with SIGKILL in the middle of training round `round`, then start it again."""

    board: str
    round: int
    at_step: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of a run: the exported PEFT folder, the server's last status, and the boards as last seen."""

    exported: Path
    status: Mapping[str, Any]
    views: Sequence[BoardView]


async def run_federation(
    folder: Path,
    specs: Sequence[BoardSpec],
    settings: Mapping[str, str],
    *,
    on_event: Callable[[Sequence[BoardView]], None],
    say: Callable[[str], None] = lambda line: None,
    cut: PowerCut | None = None,
) -> Outcome:
    """Start everything, wait until every board has finished, export. Raises DemoError where a board failed, where the
    power cut could not be made, or where a round lacks a board's update."""
    server = Aggregator(folder / "server")
    await server.init(len(specs), settings)
    boards: list[Board] = []
    mishap = Mishap(cut, say)

    def take(board: Board, event: Event) -> None:
        mishap.watch(board, event)
        on_event([board.view for board in boards])

    try:
        await server.start()
        token = await server.token()
        boards += [Board(spec, server.url, token, folder / spec.name, take) for spec in specs]
        await asyncio.gather(*(live(board, mishap) for board in boards))
        status = await server.status()
        exported = folder / "adapter"
        await server.export(exported)
    finally:
        await asyncio.gather(*(board.stop() for board in boards))
        await server.stop()
    if cut is not None and not mishap.happened:
        raise DemoError(f"{cut.board} could not be killed in round {cut.round}: it was too fast")
    return Outcome(exported, status, [board.view for board in boards])


class Mishap:
    """The power cut, made once."""

    def __init__(self, cut: PowerCut | None, say: Callable[[str], None]) -> None:
        self._cut = cut
        self._say = say
        self.happened = False

    def watch(self, board: Board, event: Event) -> None:
        cut = self._cut
        if cut is None or self.happened or board.spec.name != cut.board:
            return
        if event.get("phase") == "train" and event.get("round") == cut.round and event.get("step", 0) >= cut.at_step:
            self.happened = True
            self._say(f"⚡ SIGKILL to {cut.board} in round {cut.round}, step {event['step']} of {event['steps']}")
            board.kill()

    def was_meant_for(self, board: Board) -> bool:
        return self.happened and self._cut is not None and self._cut.board == board.spec.name

    def restarted(self, board: Board) -> None:
        self._say(f"⏻ {board.spec.name} is started again")


async def live(board: Board, mishap: Mishap) -> None:
    """A board's whole life: run to the end, once more if the power was cut. Raises DemoError on any other end."""
    await board.start()
    code = await board.follow()
    if code != 0 and mishap.was_meant_for(board) and board.view.restarts == 0:
        board.view.restarts = 1
        board.view.state = "off"
        await asyncio.sleep(DOWN_S)
        mishap.restarted(board)
        await board.start()
        code = await board.follow()
    if code != 0:
        last = board.view.last
        raise DemoError(f"{board.spec.name} ended with exit code {code}: {last.get('message', 'see its log')}")
